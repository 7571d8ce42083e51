"""Checkpoints that go: removed when newer ones take their places, or set aside where they cannot be used."""

from __future__ import annotations

import itertools
import logging
import shutil
from pathlib import Path

from partial_fc.checkpoint.layout import STEP, CheckpointFolder, point, whole_checkpoints

_log = logging.getLogger(__name__)


def prune(checkpoints: Path, keep_last: int, keep_every_steps: int | None) -> None:
    """Remove all but the last ``keep_last`` checkpoints, those of every ``keep_every_steps`` steps, and the best."""
    last = {folder.path for folder in whole_checkpoints(checkpoints)[-keep_last:]}
    for folder in removable_checkpoints(checkpoints, keep_every_steps):
        if folder.path not in last:
            try:
                folder.manifest_file.unlink()  # first: what is left of a removal that is interrupted is no checkpoint
                shutil.rmtree(folder.path)
            except OSError as error:  # a file that another process has open, say: no reason to end a training
                _log.warning("%s could not be removed: %s", folder.path, error)


def removable_checkpoints(checkpoints: Path, keep_every_steps: int | None) -> list[CheckpointFolder]:
    """The whole ones that are kept for being the last alone: not those of every so many steps, and not the best."""
    best, whole = (checkpoints / "best").resolve(), whole_checkpoints(checkpoints)
    others = [each for each in whole if keep_every_steps is None or each.step % keep_every_steps]
    return [each for each in others if each.path.resolve() != best]


def remove_unfinished(checkpoints: Path) -> None:
    """Remove what saves and removals left that were interrupted, as far as the file system lets it."""
    for path in checkpoints.glob("step-*"):
        is_unfinished = path.suffix == ".partial" or not (path / "manifest.json").is_file()
        if is_unfinished and STEP.fullmatch(path.name.removesuffix(".partial")):
            shutil.rmtree(path, ignore_errors=True)


def set_aside(checkpoint: CheckpointFolder) -> Path:
    """Where a checkpoint that cannot be used now lies, ``step-N.damaged``: it counts no more, and nothing is lost."""
    checkpoints, damaged = checkpoint.path.parent, f"{checkpoint.path.name}.damaged"
    names = itertools.chain([damaged], (f"{damaged}-{number}" for number in itertools.count(2)))
    aside = next(checkpoints / name for name in names if not (checkpoints / name).exists())
    if (checkpoints / "best").resolve() == checkpoint.path.resolve():
        (checkpoints / "best").unlink()
    checkpoint.path.rename(aside)
    if whole := whole_checkpoints(checkpoints):
        point(checkpoints / "latest", whole[-1].path)
    return aside
