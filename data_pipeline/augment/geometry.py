"""Where the pixels of an augmented image come from: mirror, crop and warp.

A warp moves an image about its centre by a linear map and then by a shift,

    output = centre + shift + R(angle) K(shear) factor M(mirror) (input - centre)

with R a turn (clockwise, as y points down), K = [[1, shear], [0, 1]], M = diag(-1, 1) or nothing.
"""

import numpy as np
from numpy.typing import NDArray

from data_pipeline.augment.augmentation import Augmentation
from data_pipeline.augment.draws import CHANCE, Change, Draws, Parameters, between, signed

MIRROR, ANGLE, FACTOR, SHEAR, SHIFT_X, SHIFT_Y = range(6)
AREA, ASPECT, BOX_Y, BOX_X = range(CHANCE + 1, CHANCE + 5)


def geometry_parameters(augmentation: Augmentation, draws: Draws, height: int, width: int) -> Parameters:
    """What the graph must know to move the images: `crop` with `crop_start` and `crop_end`; `matrix`, the mirror
    included, and `warp` where not all images are warped; `flip` where some are mirrored without a warp."""
    parameters: Parameters = {}
    if augmentation.crop:
        parameters["crop"] = draws.of(Change.CROP)[:, CHANCE] < augmentation.crop
        parameters["crop_start"], parameters["crop_end"] = crop_boxes(augmentation, draws)
    if augmentation.warps:
        parameters["matrix"] = affine_matrices(augmentation, draws, height, width)
        if augmentation.warp < 1.0:
            parameters["warp"] = draws.of(Change.WARP)[:, CHANCE] < augmentation.warp
    if augmentation.mirrors and not (augmentation.warps and augmentation.warp == 1.0):
        parameters["flip"] = mirrored(augmentation, draws).astype(np.int32)
    return parameters


def mirrored(augmentation: Augmentation, draws: Draws) -> NDArray[np.bool_]:
    """Which of the samples appear as mirror images in their epochs; shape (n,)."""
    return draws.moves()[:, MIRROR] < augmentation.mirror


def affine_matrices(augmentation: Augmentation, draws: Draws, height: int, width: int) -> NDArray[np.float32]:
    """For each sample the matrix from output to input coordinates, the mirror included; shape (n, 2, 3).

    Coordinates are (x, y) in pixels, with (0, 0) the corner of the first pixel and its centre at (0.5, 0.5): what
    DALI's `warp_affine` takes as it stands.
    """
    moves = draws.moves()
    flips = np.where(moves[:, MIRROR] < augmentation.mirror, -1.0, 1.0)
    angles = np.deg2rad(augmentation.rotate_degrees) * signed(moves[:, ANGLE])
    factors = 1.0 + augmentation.scale * signed(moves[:, FACTOR])
    shears = augmentation.shear * signed(moves[:, SHEAR])
    centre = np.array([width / 2, height / 2])
    shifts = augmentation.translate * signed(moves[:, SHIFT_X : SHIFT_Y + 1]) * [width, height]

    cosines, sines = np.cos(angles), np.sin(angles)
    # The inverse factor by factor: M K(-shear) R(-angle) / factor.
    inverse = np.empty((len(moves), 2, 2))
    inverse[:, 0, 0] = flips * (cosines + shears * sines)
    inverse[:, 0, 1] = flips * (sines - shears * cosines)
    inverse[:, 1, 0] = -sines
    inverse[:, 1, 1] = cosines
    inverse /= factors[:, None, None]
    offsets = centre - np.einsum("nij,nj->ni", inverse, centre + shifts)
    return np.concatenate([inverse, offsets[:, :, None]], axis=2).astype(np.float32)


def crop_boxes(augmentation: Augmentation, draws: Draws) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where the crops start and end, (y, x) as shares of the stored image; each (n, 2)."""
    starts, ends = boxes(draws.of(Change.CROP), augmentation.crop_area, 1.0, augmentation.crop_aspect)
    return starts.astype(np.float32), ends.astype(np.float32)


def boxes(
    numbers: NDArray[np.float64], smallest: float, largest: float, aspect: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes within the unit square, their starts and ends (y, x), each (n, 2), from draws (n, DRAWS).

    The area is even in [smallest, largest]; width / height is log-even in [1 / aspect, aspect], or in the part of it in
    which a box of that area fits, so that none is drawn again or squeezed; the place is even among those inside.
    """
    areas = between(numbers[:, AREA], smallest, largest)
    reaches = np.minimum(np.log(aspect), -np.log(areas))
    ratios = np.exp(reaches * signed(numbers[:, ASPECT]))
    sizes = np.minimum(np.sqrt(np.stack([areas / ratios, areas * ratios], axis=1)), 1.0)
    starts = (1.0 - sizes) * numbers[:, BOX_Y : BOX_X + 1]
    return starts, np.minimum(starts + sizes, 1.0)
