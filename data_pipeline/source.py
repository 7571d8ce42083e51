"""What every form of a data set offers: encoded images with one class label each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class Source(ABC):
    """Encoded images with one class label each, numbered 0..len-1 for as long as the data set lives.

    A form of data set gives `labels` and `read`; the rest follows from these, or is better where the form knows more.
    """

    labels: NDArray[np.int64]
    """The class of every image, shape (len,)."""
    files: Sequence[Path] = ()
    """What holds the images: files, or a folder of folders; nothing where they are made in memory."""
    left_out: Sequence[str] = ()
    """What those files hold and this set leaves out, a sentence each, for people to read."""

    @abstractmethod
    def read(self, sample: int) -> NDArray[np.uint8]:
        """The encoded bytes of one image, read-only; called from any thread or forked process.

        OSError or ValueError, which name the place, for an image that cannot be read.
        """

    def __len__(self) -> int:
        return self.labels.size

    def label(self, sample: int) -> int:
        """The class of one image."""
        return int(self.labels[sample])

    @cached_property
    def num_classes(self) -> int:
        """The largest label plus one."""
        return int(self.labels.max()) + 1

    @cached_property
    def identities(self) -> Sequence[str] | None:
        """The name of every label; None where labels are numbers only."""
        return None

    def name(self, sample: int) -> str:
        """A place that a person can find, such as a file and a record key; also of an image that cannot be read."""
        return f"sample {sample}"

    def prefetch(self, samples: NDArray[np.int64]) -> None:  # noqa: B027  a form that takes no hint has nothing to do
        """Has the system bring these images into memory, and waits for none; called from any thread."""


class View(Source):
    """Images of other sources, under other numbers or labels; reads and names an image where it lies."""

    @abstractmethod
    def origin(self, sample: int) -> tuple[Source, int]:
        """The source that holds an image, and the number that the image has there."""

    def read(self, sample: int) -> NDArray[np.uint8]:
        """The encoded bytes that the image's own source reads."""
        source, within = self.origin(sample)
        return source.read(within)

    def name(self, sample: int) -> str:
        """The place that the image's own source gives."""
        source, within = self.origin(sample)
        return source.name(within)
