"""Augmentation parameters, drawn once per (seed, epoch, sample): whichever rank, device or resumed run asks, the same.

An image is moved about its centre by a linear map and then by a shift,

    output = centre + shift + R(angle) K(shear) factor M(mirror) (input - centre)

with R a turn (clockwise, as y points down), K = [[1, shear], [0, 1]], M = diag(-1, 1) or nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipeline.counter_hash import bits, fractions, key

AUGMENT_STREAM = 2  # apart from every other use of the same seed
MIRROR, ANGLE, FACTOR, SHEAR, SHIFT_X, SHIFT_Y = range(6)
DRAWS = 8  # numbers set aside per sample


@dataclass(frozen=True)
class Augmentation:
    """How far images are moved: mirrored by chance, the rest drawn uniformly in plus or minus what stands here."""

    mirror: float = 0.0
    """Probability of a left-right mirror image."""
    rotate_degrees: float = 0.0
    scale: float = 0.0
    """Of the factor 1 + draw."""
    shear: float = 0.0
    """Of the horizontal shift per unit of height."""
    translate: float = 0.0
    """Fraction of the width and, drawn apart, of the height."""

    def __post_init__(self) -> None:
        bounds = {"mirror": 1.0, "rotate_degrees": 180.0, "scale": 0.99, "shear": 10.0, "translate": 1.0}
        for name, bound in bounds.items():
            if not 0.0 <= getattr(self, name) <= bound:
                raise ValueError(f"augmentation {name} = {getattr(self, name)}: expected 0 to {bound}")

    @property
    def mirrors(self) -> bool:
        """Whether any image may be mirrored."""
        return self.mirror > 0.0

    @property
    def warps(self) -> bool:
        """Whether pixels must be interpolated; a mirror image alone needs none of that."""
        return max(self.rotate_degrees, self.scale, self.shear, self.translate) > 0.0


def mirrored(
    augmentation: Augmentation, epochs: NDArray[np.int64], samples: NDArray[np.int64], seed: int
) -> NDArray[np.bool_]:
    """Which of the samples appear as mirror images in their epochs; shape (n,)."""
    return _draws(epochs, samples, seed)[:, MIRROR] < augmentation.mirror


def affine_matrices(
    augmentation: Augmentation,
    epochs: NDArray[np.int64],
    samples: NDArray[np.int64],
    seed: int,
    height: int,
    width: int,
) -> NDArray[np.float32]:
    """For each sample the matrix from output to input coordinates, the mirror included; shape (n, 2, 3).

    Coordinates are (x, y) in pixels, with (0, 0) the corner of the first pixel and its centre at (0.5, 0.5): what
    DALI's `warp_affine` takes as it stands.
    """
    draws = _draws(epochs, samples, seed)
    flips = np.where(draws[:, MIRROR] < augmentation.mirror, -1.0, 1.0)
    angles = np.deg2rad(augmentation.rotate_degrees) * _signed(draws[:, ANGLE])
    factors = 1.0 + augmentation.scale * _signed(draws[:, FACTOR])
    shears = augmentation.shear * _signed(draws[:, SHEAR])
    centre = np.array([width / 2, height / 2])
    shifts = augmentation.translate * _signed(draws[:, SHIFT_X : SHIFT_Y + 1]) * [width, height]

    cosines, sines = np.cos(angles), np.sin(angles)
    # The inverse factor by factor: M K(-shear) R(-angle) / factor.
    inverse = np.empty((len(draws), 2, 2))
    inverse[:, 0, 0] = flips * (cosines + shears * sines)
    inverse[:, 0, 1] = flips * (sines - shears * cosines)
    inverse[:, 1, 0] = -sines
    inverse[:, 1, 1] = cosines
    inverse /= factors[:, None, None]
    offsets = centre - np.einsum("nij,nj->ni", inverse, centre + shifts)
    return np.concatenate([inverse, offsets[:, :, None]], axis=2).astype(np.float32)


def _draws(epochs: NDArray[np.int64], samples: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), shape (n, DRAWS); each parameter keeps its own whatever else is switched on."""
    streams = bits(key(AUGMENT_STREAM, seed), np.asarray(epochs).astype(np.uint64))
    first = np.asarray(samples).astype(np.uint64) * np.uint64(DRAWS)
    counters = first[:, None] + np.arange(DRAWS).astype(np.uint64)
    return fractions(bits(np.broadcast_to(streams[:, None], counters.shape), counters))


def _signed(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2.0 * draws - 1.0
