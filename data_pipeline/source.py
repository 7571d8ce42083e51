"""What every form of a data set offers: encoded images with one class label each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


class Source(Protocol):
    """Encoded images with one class label each, numbered 0..len-1 for as long as the data set lives."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of every image, shape (len,)."""

    @property
    def num_classes(self) -> int:
        """The largest label plus one."""

    def __len__(self) -> int:
        """The number of images."""

    def label(self, sample: int) -> int:
        """The class of one image."""

    def read(self, sample: int) -> NDArray[np.uint8]:
        """The encoded bytes of one image; read from any thread or forked process."""


@runtime_checkable
class NamedSource(Protocol):
    """A source that can say where an image lies, so that an error about it can be acted upon."""

    def name(self, sample: int) -> str:
        """A place a person can find, such as a file and a record key."""


@runtime_checkable
class PrefetchingSource(Protocol):
    """A source that can be told what will be read next."""

    def prefetch(self, samples: NDArray[np.int64]) -> None:
        """Has the system bring these images into memory, and waits for none; called from any thread."""


@runtime_checkable
class IdentifiedSource(Protocol):
    """A source that knows what its labels are called: a name each, or None where labels are but numbers."""

    @property
    def identities(self) -> Sequence[str] | None:
        """The name of every label."""


def sample_name(source: Source, sample: int) -> str:
    """Where an image lies, as its source says; its number where the source cannot, as of a file that vanished."""
    try:
        return source.name(sample) if isinstance(source, NamedSource) else f"sample {sample}"
    except (OSError, ValueError):
        return f"sample {sample}"
