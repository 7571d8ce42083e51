"""Pictures of any set, each aligned by its landmarks when it is read."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from data_pipeline.aligning.similarity import SIDE
from data_pipeline.aligning.warp import aligned_face
from data_pipeline.images.checks import image_problem
from data_pipeline.images.jpeg import REFUSALS
from data_pipeline.source import Source, View


class AlignedSource(View):
    """The images of `source`, aligned by `points`, (len, 5, 2), to `side` pixels: 2 ms each."""

    def __init__(self, source: Source, points: NDArray[np.float64], side: int = SIDE) -> None:
        if points.shape != (len(source), 5, 2):
            raise ValueError(f"landmarks of shape {points.shape} for {len(source)} images: expected (images, 5, 2)")
        self._source, self._points, self._side = source, points, side
        self.labels, self.files = source.labels, source.files

    def origin(self, sample: int) -> tuple[Source, int]:
        """The picture before it was aligned."""
        return self._source, sample

    def read(self, sample: int) -> NDArray[np.uint8]:
        """The aligned face as PPM. ValueError, naming the place, where the picture or its landmarks are bad."""
        pixels = self.pixels(sample)
        header = b"P6 %d %d 255\n" % (self._side, self._side)
        return np.frombuffer(header + pixels.tobytes(), np.uint8)

    def pixels(self, sample: int) -> NDArray[np.uint8]:
        """The aligned face, (side, side, 3) in RGB."""
        encoded = self._source.read(sample).tobytes()
        if problem := image_problem(encoded):
            raise ValueError(f"{self.name(sample)}: {problem}")
        try:
            return aligned_face(_rgb(encoded), self._points[sample], self._side)
        except REFUSALS as error:
            raise ValueError(f"{self.name(sample)} cannot be aligned: {error}") from error


def _rgb(encoded: bytes) -> NDArray[np.uint8]:
    """Pixels as the detector saw them: upright, (height, width, 3)."""
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
