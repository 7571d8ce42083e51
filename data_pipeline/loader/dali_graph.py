"""The DALI graph: encoded bytes to augmented pixels (height, width, 3), and their normalisation, x / 127.5 - 1.

The graph draws nothing itself: each image's changes come as parameters beside its bytes. DALI rewrites an `if` over
such a parameter to part the batch, so that an image that did not draw a blur is not blurred. Which parameters there are
is decided once, when the graph is made: what is switched off costs nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import pipeline_def
from nvidia.dali.tensors import TensorCPU
from nvidia.dali.types import DALIDataType, DALIImageType
from torch import Tensor

from data_pipeline.augment.draws import Parameters
from data_pipeline.images.headers import ImageHeader

CPU = "cpu"
HALF_RANGE = 127.5
FLOATS = (torch.float32, torch.float16)
PARAMETER_TYPES = {
    np.dtype(np.float32): DALIDataType.FLOAT,
    np.dtype(np.int32): DALIDataType.INT32,
    np.dtype(np.bool_): DALIDataType.BOOL,
}


@dataclass(frozen=True)
class ImageFormat:
    """What every image becomes, and where. An image stored in another size is resized to this one."""

    height: int
    width: int
    device: str | int = CPU
    """`"cpu"`, or the number of a CUDA device, which then decodes as well."""
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    fill: float = 0
    """Whole pixel value, 0 to 255, of what a moved image leaves bare, and of an erased box."""

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ValueError(f"images of {self.height} x {self.width} pixels: expected at least 1 x 1")
        if self.dtype not in FLOATS:
            raise ValueError(f"dtype {self.dtype}: expected one of {', '.join(map(str, FLOATS))}")
        if self.fill not in range(256):
            raise ValueError(f"fill {self.fill}: expected a whole pixel value, 0 to 255, as images are moved in bytes")
        if self.device != CPU and not isinstance(self.device, int):
            raise ValueError(f'device {self.device!r}: expected "cpu" or the number of a CUDA device')

    def is_other_size(self, headers: Sequence[ImageHeader]) -> NDArray[np.bool_]:
        """Which images must be resized, (n,). All, where the format is no square: a file may lay its image on its side,
        which its width and height do not show."""
        if self.height != self.width:
            return np.ones(len(headers), np.bool_)
        return np.array([header.height != self.height or header.width != self.width for header in headers])


def is_mirrored_by_torch(parameters: Parameters, form: ImageFormat) -> bool:
    """Whether `mirror` does what the parameters ask for: on a CPU, where nothing else changes the images.

    DALI takes 12 to 15 us an image, half of them mirrored, torch 5.
    """
    return form.device == CPU and parameters.keys() == {"flip"}


def graph_parameters(parameters: Parameters, form: ImageFormat) -> Parameters:
    """What of a batch's parameters its graph is told."""
    return {} if is_mirrored_by_torch(parameters, form) else parameters


def mirror(pixels: Tensor, flip: NDArray[np.int32]) -> None:
    """Turns the images that are to be flipped round, in place: those of (n, height, width, 3)."""
    for place in np.flatnonzero(flip).tolist():
        pixels[place] = pixels[place].flip(1)


def normalised(pixels: Tensor, form: ImageFormat) -> Tensor:
    """What the graph made, (n, height, width, 3), as images (n, 3, height, width) in the wanted dtype and layout.

    On a CPU the graph leaves bytes, which torch makes float32 in 8 us an image, new memory included; DALI takes 16 to
    22 for bitwise the same. On a GPU the graph has done it.
    """
    images = pixels.permute(0, 3, 1, 2)
    if not form.channels_last:
        images = images.contiguous()
    if form.device == CPU:
        images = images.float().mul_(1 / HALF_RANGE).sub_(1)
    return images.to(form.dtype)


def tensors(arrays: Sequence[NDArray[Any]]) -> list[TensorCPU]:
    """Arrays as DALI holds them, not copied; left to find out what they are, it takes 3 us longer over each."""
    return [TensorCPU(array, "") for array in arrays]


def _graph(inputs: Callable[[Any], list[Any]], form: ImageFormat, example: Parameters) -> DataNode:
    """Images, from a source of [bytes, is_other_size, *parameters]; `example` shows the parameters that will come."""
    kinds = [PARAMETER_TYPES[values.dtype] for values in example.values()]
    encoded, is_other_size, *drawn = fn.external_source(
        source=inputs,
        num_outputs=2 + len(example),
        batch=True,
        batch_info=True,
        dtype=[DALIDataType.UINT8, DALIDataType.BOOL, *kinds],
        ndim=[1, 0, *(values.ndim - 1 for values in example.values())],
    )
    nodes = {name: drawn[number] for number, name in enumerate(example)}  # DALI rewrites zip, and badly
    images = _sized(encoded, is_other_size, form, nodes)
    images = _moved(images, form, nodes)
    images = _changed(images, form, nodes)
    result: DataNode = images if form.device == CPU else float_images(images)
    return result


def float_images(images: Any) -> Any:
    """Bytes normalised by DALI, to float32, bitwise as `normalised` does it.

    Nothing but a product and a sum: crop_mirror_normalize, made for this, does more.
    """
    return fn.brightness_contrast(
        images, brightness=1 / HALF_RANGE, brightness_shift=-1.0, contrast_center=0.0, dtype=DALIDataType.FLOAT
    )


def _sized(encoded: DataNode, is_other_size: DataNode, form: ImageFormat, nodes: Mapping[str, DataNode]) -> Any:
    """Decoded images, whole or cropped, in one size."""
    decoder = "cpu" if form.device == CPU else "mixed"
    images: Any = fn.decoders.image(encoded, device=decoder, output_type=DALIImageType.RGB)
    size = [form.height, form.width]
    if nodes.get("crop"):
        images = fn.resize(
            images, size=size, roi_start=nodes["crop_start"], roi_end=nodes["crop_end"], roi_relative=True
        )
    elif is_other_size:
        images = fn.resize(images, size=size)
    return images


def _moved(images: Any, form: ImageFormat, nodes: Mapping[str, DataNode]) -> Any:
    """Mirrored and warped images; a warp's matrix holds the mirror."""
    if "warp" in nodes:
        if nodes["warp"]:
            images = fn.warp_affine(images, matrix=nodes["matrix"], fill_value=form.fill)
        elif "flip" in nodes:
            images = fn.flip(images, horizontal=nodes["flip"])
    elif "matrix" in nodes:
        images = fn.warp_affine(images, matrix=nodes["matrix"], fill_value=form.fill)
    elif "flip" in nodes:
        images = fn.flip(images, horizontal=nodes["flip"])
    return images


def _changed(images: Any, form: ImageFormat, nodes: Mapping[str, DataNode]) -> Any:
    """Images in other light, blurred, coarser, compressed, partly hidden: in this order, in bytes."""
    if nodes.get("colour"):
        images = fn.color_twist(
            images,
            brightness=nodes["brightness"],
            contrast=nodes["contrast"],
            saturation=nodes["saturation"],
            hue=nodes["hue_degrees"],
        )
    if nodes.get("grey"):  # exactly equal channels, as grey files have: color_twist at saturation 0 misses by a level
        images = fn.color_space_conversion(images, image_type=DALIImageType.RGB, output_type=DALIImageType.GRAY)
        images = fn.color_space_conversion(images, image_type=DALIImageType.GRAY, output_type=DALIImageType.RGB)
    if nodes.get("blur"):
        images = fn.gaussian_blur(images, sigma=nodes["blur_pixels"])
    if nodes.get("low_resolution"):
        images = fn.resize(images, size=nodes["low_resolution_size"])
        images = fn.resize(images, size=[form.height, form.width])
    if nodes.get("jpeg"):
        images = fn.jpeg_compression_distortion(images, quality=nodes["jpeg_quality"])
    if nodes.get("erase"):
        images = fn.erase(images, anchor=nodes["erase_start"], shape=nodes["erase_size"], fill_value=form.fill)
    return images


pipeline = pipeline_def(enable_conditionals=True)(_graph)
