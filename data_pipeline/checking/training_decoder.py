"""Images decoded by DALI as training decodes them: what DALI refuses, training would have to replace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.loader.bad_images import undecodable_places
from data_pipeline.loader.dali_graph import ImageFormat, pipeline, tensors

DECODED = ImageFormat(8, 8)  # what is decoded is not looked at


class TrainingDecoder:
    """One thread that decodes up to `most_images` at a time, on the CPU, and keeps its pipeline between calls."""

    def __init__(self, most_images: int) -> None:
        self._most_images = most_images
        self._images: Sequence[NDArray[np.uint8]] = ()
        self._start_pipeline()

    def refused(self, images: list[NDArray[np.uint8]]) -> list[int]:
        """The places of the images that DALI cannot decode. RuntimeError where it decodes nothing at all."""
        self._images = images
        try:
            self._pipeline.run()
        except RuntimeError:
            self._start_pipeline()  # one that failed is no use
            if refused := undecodable_places(images, DECODED):
                return refused
            raise
        return []

    def _start_pipeline(self) -> None:
        asked_for_in_time = {"exec_async": False, "exec_pipelined": False, "exec_dynamic": False}
        self._pipeline = pipeline(
            self._inputs, DECODED, {}, batch_size=self._most_images, num_threads=1, device_id=None, **asked_for_in_time
        )

    def _inputs(self, _: Any) -> list[Any]:
        return [tensors(self._images), np.ones(len(self._images), np.bool_)]
