"""Where processes start: the only code that imports both libraries.

The way of a configuration, from the command line to the folder of its run::

    partial-fc train CONFIG --set a.b=c --nproc 8         cli.py, with the arguments in command_line/
      load_config                                         config/: YAML and overrides, checked; ConfigError ends here.
                                                          Until now nothing has imported torch
      run_ranks                                           processes.py: torchrun's agent starts 8 ranks
        python -m launch.train CONFIG --set a.b=c         train.py: each rank gets the words of the command line
          load_config                                     the same Config on every rank
          RunFolder.refuse_unfit, .locked                 no run among images, and one at a time in a folder
          Watchdog.watching                               from here on a rank that hangs ends itself
          assembly.open_training_data                     the sets of images: what cannot be used is refused here,
          evaluation.open_identities                      damage and what is trained on as well is named,
          assembly.backbone                               and the weights to start from, before any rank waits
          process_group                                   the World of all ranks
            assembly.run                                  a Run: every part, each made from its own section
            assembly.open_sinks                           Prometheus; then an earlier run in the folder is kept under
                                                          another name; screen, metrics.jsonl
              partial_fc.loop.train                       the loop: batches, backbone, head, optimizer, reports
              Run.save                                    checkpoints/step-..., on the way and at the end
            evaluation.evaluate_backbone                  embeddings, measures, evaluation.json, report.html

With one process ``train.run`` is called by the command itself. ``torchrun ... -m launch.train CONFIG`` enters at the
ranks, on as many machines as there are. ``partial-fc evaluate RUN_DIR`` goes the same way through ``evaluate.py``, with
the configuration that the run left in its folder, and ``partial-fc embed MODEL IMAGES OUT`` through ``embed.py``,
without one.

A section of the configuration (``config/``) is data and makes nothing. A maker (``assembly/``) takes its section and
what it is to be joined with, and returns one part; ``assembly.run`` alone knows all of them. :class:`RunFolder
<launch.assembly.run_folder.RunFolder>` alone knows the names of a run's files. An error that a user can mend comes up
as ConfigError, ValueError, OSError or TrainingDiverged, and ``errors.py`` makes a line and an exit code of it.

The other commands are of one process and start no ranks: ``commands/``. Pages are templates with values: ``pages/``.
"""
