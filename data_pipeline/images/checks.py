"""What is wrong with one encoded image, as a text, or None: from its header alone, or by decoding it once.

A text reads `kind: how it was seen`. Only a full decode finds all that stops training, or that makes half a picture of
an image; what is wrong in the middle of a JPEG may decode into wrong pixels without any error, which no check but a
stored checksum sees.
"""

import io

from PIL import Image

from data_pipeline.images.headers import ImageHeader, image_header
from data_pipeline.images.jpeg_scans import HalfPictureError, strict_jpeg

LARGEST_PIXELS = 2**26  # 8192 x 8192, 200 MB as RGB; pictures of faces have a few thousand to a few million


def checked_header(encoded: bytes, largest_pixels: int = LARGEST_PIXELS) -> ImageHeader | str:
    """The header of an image or what it and the outline say against the image: about 7 us for one of some kilobytes.

    Zero bytes, a format that DALI does not decode, a file cut short, PNG checksums, and decoder bombs: headers of more
    than `largest_pixels`, or of more pixels than the bytes can hold.
    """
    try:
        header = image_header(encoded)
    except ValueError as error:
        return str(error)
    pixels = header.width * header.height
    if pixels <= largest_pixels:
        return header
    return (
        f"too many pixels: {header.format} of {header.width:,} x {header.height:,} = {pixels:,} in {len(encoded):,} "
        f"bytes; the bound is {largest_pixels:,}"
    )


def image_problem(encoded: bytes, largest_pixels: int = LARGEST_PIXELS) -> str | None:
    """What :func:`checked_header` says against an image, or None."""
    found = checked_header(encoded, largest_pixels)
    return found if isinstance(found, str) else None


def decoding_problem(encoded: bytes, largest_pixels: int = LARGEST_PIXELS) -> str | None:
    """What :func:`image_problem` says or, where that is nothing, why Pillow cannot decode the image: 200 us at 112 px.

    An image with a problem in its header is not decoded, so no bomb goes off. A JPEG must have all of its picture.
    """
    header = checked_header(encoded, largest_pixels)
    if isinstance(header, str):
        return header
    try:
        size = _decoded_size(encoded, header.format)
    except HalfPictureError as error:
        return str(error)
    except Exception as error:  # Pillow's decoders raise whatever comes up: struct.error, IndexError, EOFError, ...
        return f"cannot be decoded: {header.format}, {' '.join(str(error).split()) or type(error).__name__}"
    if sorted(size) != sorted(header[1:]):  # sorted: TIFF may say that it lies on its side
        return f"cannot be decoded: {header.format}, {size} pixels where its header says {header[1:]}"
    return None


def _decoded_size(encoded: bytes, name: str) -> tuple[int, int]:
    content = strict_jpeg(encoded) if name == "JPEG" else encoded
    with Image.open(io.BytesIO(content), formats=(name,)) as image:
        try:
            image.load()
        except OSError as error:
            if content is encoded or "truncated" not in str(error):
                raise
            raise HalfPictureError("half a picture: JPEG, its scan ends early; decoders make the rest grey") from error
        return image.size


def kind_of(problem: str) -> str:
    """The kind that a problem begins with, to be counted by."""
    return problem.partition(": ")[0]
