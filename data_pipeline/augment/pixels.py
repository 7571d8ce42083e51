"""What an augmented image's pixels become where they are: colour, grey, blur, low resolution, JPEG, erase."""

import numpy as np

from data_pipeline.augment.augmentation import BEST_JPEG_QUALITY, Augmentation
from data_pipeline.augment.draws import CHANCE, Change, Draws, Parameters, between, signed
from data_pipeline.augment.geometry import boxes

FIRST, SECOND, THIRD, FOURTH = range(CHANCE + 1, CHANCE + 5)
MILDEST_BLUR = 0.25  # of the strongest
SMALLEST_BOX = 0.1  # of the largest
BOX_ASPECT = 3.0


def pixel_parameters(augmentation: Augmentation, draws: Draws, height: int, width: int) -> Parameters:
    """What the graph must know of the changes that are switched on: for each a flag per image, and its parameters."""
    parameters: Parameters = {}
    if augmentation.colour:
        parameters |= colours(augmentation, draws)
    if augmentation.grey:
        parameters["grey"] = draws.of(Change.GREY)[:, CHANCE] < augmentation.grey
    if augmentation.blur:
        parameters |= blurs(augmentation, draws)
    if augmentation.low_resolution:
        parameters |= low_resolutions(augmentation, draws, height, width)
    if augmentation.jpeg:
        parameters |= jpeg_qualities(augmentation, draws)
    if augmentation.erase:
        parameters |= erased_boxes(augmentation, draws, height, width)
    return parameters


def colours(augmentation: Augmentation, draws: Draws) -> Parameters:
    """`colour`, and its three factors and one angle."""
    numbers = draws.of(Change.COLOUR)
    change = signed(numbers)
    return {
        "colour": numbers[:, CHANCE] < augmentation.colour,
        "brightness": (1.0 + augmentation.brightness * change[:, FIRST]).astype(np.float32),
        "contrast": (1.0 + augmentation.contrast * change[:, SECOND]).astype(np.float32),
        "saturation": (1.0 + augmentation.saturation * change[:, THIRD]).astype(np.float32),
        "hue_degrees": (augmentation.hue_degrees * change[:, FOURTH]).astype(np.float32),
    }


def blurs(augmentation: Augmentation, draws: Draws) -> Parameters:
    """`blur`, and `blur_pixels`: the standard deviation."""
    numbers = draws.of(Change.BLUR)
    pixels = between(numbers[:, FIRST], MILDEST_BLUR * augmentation.blur_pixels, augmentation.blur_pixels)
    return {"blur": numbers[:, CHANCE] < augmentation.blur, "blur_pixels": pixels.astype(np.float32)}


def low_resolutions(augmentation: Augmentation, draws: Draws, height: int, width: int) -> Parameters:
    """`low_resolution`, and `low_resolution_size`: whole height and width on the way, at least one pixel."""
    numbers = draws.of(Change.LOW_RESOLUTION)
    shares = between(numbers[:, FIRST], augmentation.low_resolution_share, 1.0)
    sizes = np.maximum(np.rint(shares[:, None] * [height, width]), 1.0)
    return {
        "low_resolution": numbers[:, CHANCE] < augmentation.low_resolution,
        "low_resolution_size": sizes.astype(np.float32),
    }


def jpeg_qualities(augmentation: Augmentation, draws: Draws) -> Parameters:
    """`jpeg`, and `jpeg_quality`."""
    numbers = draws.of(Change.JPEG)
    qualities = between(numbers[:, FIRST], augmentation.jpeg_quality, BEST_JPEG_QUALITY + 1)
    return {"jpeg": numbers[:, CHANCE] < augmentation.jpeg, "jpeg_quality": np.floor(qualities).astype(np.int32)}


def erased_boxes(augmentation: Augmentation, draws: Draws, height: int, width: int) -> Parameters:
    """`erase`, and the box in whole pixels (y, x): `erase_start`, and `erase_size` of at least one pixel."""
    numbers = draws.of(Change.ERASE)
    starts, ends = boxes(numbers, SMALLEST_BOX * augmentation.erase_area, augmentation.erase_area, BOX_ASPECT)
    extents = np.array([height, width])
    first = np.minimum(np.rint(starts * extents), extents - 1)
    sizes = np.maximum(np.rint(ends * extents) - first, 1.0)
    return {
        "erase": numbers[:, CHANCE] < augmentation.erase,
        "erase_start": first.astype(np.float32),
        "erase_size": sizes.astype(np.float32),
    }
