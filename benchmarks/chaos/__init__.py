"""Kills, stops and damage for real, by rank, step and place: that a run survives them, and what they cost.

A fault is a line of a file (``faults.py``). A rank that is to suffer is ``benchmarks.chaos.rank`` in place of
``launch.train``: the same program, of which named functions tell the injector (``injector.py``) where they are
(``places.py``); what happens there is one of ``actions.py``. The program itself knows nothing of it. Ranks write down
what they do, and ``figures.py`` reads from it how long a failure took and what it cost.
"""
