"""The section `evaluation`: on what and when a run is measured, and which of its checkpoints is the best."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from launch.config.section import Section, UserPath

LOWER_IS_BETTER = {"eer"}
PAIR_MEASURES = ("accuracy", "eer")
MEASURES = ("rank1", "eer")
FARS = ("1e-1", "1e-2", "1e-3", "1e-4", "1e-5", "1e-6")


class EvaluationConfig(Section):
    """When a training is measured, and on what."""

    every_steps: int | None = Field(None, ge=1, description="on the way too; null: at the end alone")
    sets: tuple[UserPath, ...] = Field(
        (), description="besides data.evaluate: sets of identities in any form, or of pairs such as lfw.bin"
    )
    best: str | None = Field(
        None, description="SET.MEASURE, such as lfw.accuracy: the checkpoint with the best is kept, as checkpoints/best"
    )
    flip: bool = Field(False, description="add the mirrored image's embedding, as is usual for faces")

    @field_validator("sets")
    @classmethod
    def _refuse_one_name_for_two(cls, sets: tuple[Path, ...]) -> tuple[Path, ...]:
        names = [set_name(path) for path in sets]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sets are called {twice[0]}: their figures would have one name; rename one")
        return sets


def set_name(path: Path) -> str:
    """By which figures of the set in ``path`` are known: the file's name without its ending, or the folder's."""
    return path.stem if path.suffix else path.name


def known_measures(path: Path) -> tuple[str, ...]:
    """The measures of the set in ``path``: ``rank1`` or ``accuracy``, ``eer``, and ``tar_at_far_1e-3`` and the like."""
    own = PAIR_MEASURES if path.suffix.lower() == ".bin" else MEASURES
    return (*own, *(f"tar_at_far_{far}" for far in FARS))
