"""The section ``data.augmentation``: how often and how far training images are changed (docs/augmentation.md)."""

from __future__ import annotations

from pydantic import Field

from data_pipeline.augment.augmentation import BEST_JPEG_QUALITY, Augmentation
from launch.config.section import Section


class AugmentationConfig(Section):
    """Random changes of a training image: for each a probability, zero meaning never, and how strong it may be."""

    crop: float = Field(0.0, ge=0, le=1, description="probability of a part drawn to the size of the whole")
    crop_area: float = Field(Augmentation.crop_area, ge=0.01, le=1, description="smallest part, as a share of the area")
    crop_aspect: float = Field(Augmentation.crop_aspect, ge=1, le=10, description="of the part's width : height")
    mirror: float = Field(0.0, ge=0, le=1, description="probability of a left-right flip")
    warp: float = Field(1.0, ge=0, le=1, description="probability of the four below, each drawn evenly in ± its value")
    rotate_degrees: float = Field(0.0, ge=0, le=180, description="of a turn")
    scale: float = Field(0.0, ge=0, lt=1, description="as a share of the size")
    shear: float = Field(0.0, ge=0, lt=1, description="sideways, as a share of the height")
    translate: float = Field(0.0, ge=0, lt=1, description="as a share of the side")
    colour: float = Field(0.0, ge=0, le=1, description="probability of the four below, each drawn as above")
    brightness: float = Field(Augmentation.brightness, ge=0, le=1, description="of a factor 1 ± this; so the next two")
    contrast: float = Field(Augmentation.contrast, ge=0, le=1, description="likewise")
    saturation: float = Field(Augmentation.saturation, ge=0, le=1, description="likewise")
    hue_degrees: float = Field(Augmentation.hue_degrees, ge=0, le=180, description="of a turn of the colours")
    grey: float = Field(0.0, ge=0, le=1, description="probability of an image without colour")
    blur: float = Field(0.0, ge=0, le=1, description="probability of a Gaussian blur")
    blur_pixels: float = Field(Augmentation.blur_pixels, ge=0.1, le=20, description="its largest standard deviation")
    low_resolution: float = Field(0.0, ge=0, le=1, description="probability of an image made small and large again")
    low_resolution_share: float = Field(Augmentation.low_resolution_share, ge=0.01, le=1, description="its least side")
    jpeg: float = Field(0.0, ge=0, le=1, description="probability of a further compression")
    jpeg_quality: int = Field(Augmentation.jpeg_quality, ge=1, le=BEST_JPEG_QUALITY, description="its lowest quality")
    erase: float = Field(0.0, ge=0, le=1, description="probability of a box filled with data.fill")
    erase_area: float = Field(Augmentation.erase_area, ge=0.001, le=1, description="its largest share of the area")
