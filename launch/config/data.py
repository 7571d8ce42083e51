"""The section `data`: which images, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from launch.config.augmentation import AugmentationConfig
from launch.config.section import Section, UserPath


class DataConfig(Section):
    """Where the images lie and how they are read."""

    train: UserPath | tuple[UserPath, ...] = Field(
        description="a set of images, in any form that data_pipeline/formats/by_path.py knows, or a list of sets"
    )
    join: Literal["offset", "merge"] = Field(
        "offset", description="several sets: every identity is in one alone, or the same one may be in several"
    )
    evaluate: UserPath | None = Field(None, description="held-out identities, in any of these forms")
    image_column: str | None = Field(None, description="of .parquet and .arrow; left out: told by its name and type")
    label_column: str | None = Field(None, description="likewise")
    root: Path | None = Field(None, description="of lists: where their paths begin; left out: in the list's folder")
    num_classes: int | None = Field(None, ge=2, description="checked against the data; taken from it when left out")
    num_images: int | None = Field(None, ge=1, description="likewise")
    image_size: int = Field(112, ge=8, le=16384, description="side in pixels")
    fill: int = Field(0, ge=0, le=255, description="what lies outside a warped image")
    label_noise: float = Field(0.0, ge=0, le=1, description="share of training labels replaced by wrong ones")
    least_images_per_identity: int = Field(1, ge=1, description="identities with fewer are left out, labels renumbered")
    images_per_identity_in_batch: int | None = Field(
        None, ge=1, description="so many images of each identity of a batch; left out: all images shuffled"
    )
    quarantine: UserPath | tuple[UserPath, ...] = Field(
        (),
        description="a list written by partial-fc verify or clean, or several, of the training or the held-out set: "
        "these images are replaced by others from the start, or left out",
    )
    merge: UserPath | None = Field(
        None, description="a list written by partial-fc clean: identities of the training set that are one"
    )
    most_bad_images: float = Field(
        0.01, ge=0, le=1, description="share of the images seen above which a run ends; ten are allowed, with 0 none"
    )
    decode_threads: int = Field(1, ge=1, le=1024, description="per rank")
    augmentation: AugmentationConfig = AugmentationConfig(mirror=0.5)

    @field_validator("quarantine", mode="before")
    @classmethod
    def _no_list(cls, given: Any) -> Any:
        """Let ``data.quarantine=`` mean none."""
        return () if given is None else given

    @field_validator("train", mode="before")
    @classmethod
    def _refuse_what_is_no_path(cls, given: Any) -> Any:
        """Say in one sentence what pydantic says once for each kind of value that is allowed."""
        paths = given if isinstance(given, list | tuple) else [given]
        if not paths or not all(isinstance(path, str | Path) and str(path) for path in paths):
            raise ValueError(f"expected a path or a list of paths, got {given!r}")
        return given
