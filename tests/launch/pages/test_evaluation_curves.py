"""Figures that a page of a whole run does not show by itself."""

from __future__ import annotations

from launch.pages.curves import evaluation_curves


def test_a_curve_for_each_set_that_was_measured_on_the_way() -> None:
    records = [
        {"step": 5, "lfw.accuracy": 0.8, "lfw.eer": 0.2},
        {"step": 10, "lfw.accuracy": 0.9, "people.rank1": 0.5},
        {"step": 10, "lfw.accuracy": 0.95, "people.rank1": 0.6},
    ]
    curves = evaluation_curves(records)
    assert [(curve.name, curve.last) for curve in curves] == [("lfw: accuracy", "0.9500"), ("people: rank-1", "0.6000")]
    assert evaluation_curves([]) == []
