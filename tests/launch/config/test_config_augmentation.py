"""The section of the configuration and the library's own dataclass: one set of names, defaults and bounds."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from data_pipeline.augment.augmentation import BOUNDS, Augmentation
from launch.config.augmentation import AugmentationConfig


def test_the_section_says_what_the_library_takes() -> None:
    assert Augmentation(**AugmentationConfig().model_dump()) == Augmentation()
    assert list(AugmentationConfig.model_fields) == list(vars(Augmentation()))


@pytest.mark.parametrize("name", BOUNDS)
def test_what_the_section_lets_through_the_library_takes(name: str) -> None:
    for bound, beyond in zip(BOUNDS[name], (-1, 1), strict=True):
        with pytest.raises(ValidationError):
            AugmentationConfig(**{name: bound + beyond})
        within = min(bound, 0.99) if name in ("scale", "shear", "translate") else bound
        section = AugmentationConfig(**{name: within})
        assert getattr(Augmentation(**section.model_dump()), name) == within
