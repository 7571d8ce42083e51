"""A training of arcface_torch that a run goes on with: what it takes over, in words, and what its config has to say."""

from __future__ import annotations

from pathlib import Path

from launch.assembly.model import checkpoint_of
from launch.config.arcface_torch import GoingOn
from launch.config.run import Config
from partial_fc.checkpoint.arcface_torch import Origin
from partial_fc.checkpoint.layout import CheckpointFolder, Manifest
from partial_fc.checkpoint.taking_up import equal_row_rate

_STATE = {"sgd": "momentum", "adamw": "moments"}


def imported_run(run: Path) -> GoingOn:
    """What a configuration has to say so that it goes on with the imported ``run``. ValueError for any other folder."""
    manifest = CheckpointFolder(checkpoint_of(run)).manifest()
    origin = Origin.of(manifest)
    if origin is None:
        raise ValueError(f"{run} is no import of arcface_torch: give --run the folder that `import arcface_torch` made")
    course, length = origin.course, origin.row_length
    if course is None or length is None:
        return GoingOn(run, None, None)
    return GoingOn(run, course.schedule.get("power"), lambda batch_size: equal_row_rate(course, length, batch_size))


def taken_over(manifest: Manifest, origin: Origin, config: Config) -> list[str]:
    """What the run takes over, what starts new, and where its pace is another than there; a line each."""
    course, rows = origin.course, config.classifier
    taken, new = ["the backbone"], ["random generators", "the order of the images"]
    if course is None:
        new.insert(0, f"the state of the optimizers ({origin.without})")
    elif course.optimizer != config.optimizer.rule:
        new.insert(0, f"the backbone's optimizer, {course.optimizer} there and {config.optimizer.rule} here")
    else:
        taken.append(f"its {course.optimizer} {_STATE[course.optimizer]}")
    if manifest.classes:
        taken.append(f"{manifest.num_classes:,} class rows")
        if course is not None and course.optimizer == rows.optimizer and (rows.momentum or rows.optimizer == "adamw"):
            taken.append(f"their {_STATE[course.optimizer]}")
        elif course is not None:
            because = "classifier.momentum is 0" if rows.optimizer == course.optimizer else f"{course.optimizer} there"
            new.insert(0, f"the optimizer of the class rows ({because})")
    else:
        new.insert(0, "the class rows")
    lines = [
        f"goes on from {manifest.facts['imported_from']} at epoch {origin.epoch}, step {manifest.step:,}. Taken over: "
        f"{', '.join(taken)}. New: {', '.join(new)}"
    ]
    if course is not None and origin.row_length is not None:
        rate = equal_row_rate(course, origin.row_length, config.schedule.batch_size)
        lines.append(
            f"classifier.learning_rate is {rows.learning_rate:.4g}; {rate:.4g} keeps the pace of the class rows there, "
            f"whose median length is {origin.row_length:.3g}"
        )
    if course is not None and course.total_steps is not None:
        lines.append(f"the schedule there ended at step {course.total_steps:,}")
    return lines
