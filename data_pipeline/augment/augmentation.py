"""What may happen to a training image: a chance for each change, and how strong it may be.

A change named by itself (`blur`) is the probability that an image gets it; what stands beside it (`blur_pixels`) says
how much, drawn anew for each image. Changes come in the order of the fields, as light, lens, sensor and file would
bring them. `augment_geometry` and `augment_pixels` draw their parameters, `dali_graph` applies them.
"""

from dataclasses import dataclass

BEST_JPEG_QUALITY = 95  # above it hardly a pixel changes


@dataclass(frozen=True)
class Augmentation:
    """How often and how far images are changed. Left as it is, never."""

    crop: float = 0.0
    """Probability of a part of the image, drawn to the size of the whole."""
    crop_area: float = 0.5
    """Smallest area of that part, as a share of the whole; drawn evenly from here to 1."""
    crop_aspect: float = 1.25
    """Most that the part's width : height differs from the whole's, either way, as a factor."""

    mirror: float = 0.0
    """Probability of a left-right mirror image."""

    warp: float = 1.0
    """Probability of the four below, each drawn evenly in plus or minus what stands here; zero means never."""
    rotate_degrees: float = 0.0
    scale: float = 0.0
    """Of the factor 1 + draw."""
    shear: float = 0.0
    """Of the horizontal shift per unit of height."""
    translate: float = 0.0
    """Fraction of the width and, drawn apart, of the height."""

    colour: float = 0.0
    """Probability of another light: the four below, each drawn evenly in plus or minus what stands here."""
    brightness: float = 0.3
    """Of the factor 1 + draw; so too the next two."""
    contrast: float = 0.3
    saturation: float = 0.3
    hue_degrees: float = 10.0

    grey: float = 0.0
    """Probability of an image without colour."""

    blur: float = 0.0
    """Probability of a Gaussian blur."""
    blur_pixels: float = 1.5
    """Largest standard deviation, drawn evenly from a quarter of this on; in pixels of the final image."""

    low_resolution: float = 0.0
    """Probability of an image made smaller and then as large as before."""
    low_resolution_share: float = 0.3
    """Smallest side on the way, as a share of the whole; drawn evenly from here to 1."""

    jpeg: float = 0.0
    """Probability of a further JPEG compression."""
    jpeg_quality: int = 20
    """Lowest quality, drawn evenly from here to 95."""

    erase: float = 0.0
    """Probability of a box that hides what is behind it."""
    erase_area: float = 0.2
    """Largest area of that box, as a share of the whole; drawn evenly from a tenth of this on."""

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"augmentation {name} = {getattr(self, name)}: expected {low:g} to {high:g}")
        if self.jpeg_quality != int(self.jpeg_quality):
            raise ValueError(f"augmentation jpeg_quality = {self.jpeg_quality}: expected a whole number")

    @property
    def mirrors(self) -> bool:
        """Whether any image may be mirrored."""
        return self.mirror > 0.0

    @property
    def warps(self) -> bool:
        """Whether any image may be turned, scaled, sheared or shifted; a mirror image alone needs no interpolation."""
        return self.warp > 0.0 and max(self.rotate_degrees, self.scale, self.shear, self.translate) > 0.0


CHANCES = ("mirror", "crop", "warp", "colour", "grey", "blur", "low_resolution", "jpeg", "erase")
BOUNDS = {
    **dict.fromkeys(CHANCES, (0.0, 1.0)),
    "crop_area": (0.01, 1.0),
    "crop_aspect": (1.0, 10.0),
    "rotate_degrees": (0.0, 180.0),
    "scale": (0.0, 0.99),
    "shear": (0.0, 10.0),
    "translate": (0.0, 1.0),
    "brightness": (0.0, 1.0),
    "contrast": (0.0, 1.0),
    "saturation": (0.0, 1.0),
    "hue_degrees": (0.0, 180.0),
    "blur_pixels": (0.1, 20.0),
    "low_resolution_share": (0.01, 1.0),
    "jpeg_quality": (1, BEST_JPEG_QUALITY),
    "erase_area": (0.001, 1.0),
}
