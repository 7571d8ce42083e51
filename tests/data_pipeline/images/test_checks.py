import io
import struct
import zlib

import numpy as np
import pytest
from encoded import FORMATS, PICTURE, encoded
from PIL import Image

from data_pipeline.images.checks import decoding_problem, image_problem, kind_of
from data_pipeline.images.headers import image_header
from data_pipeline.loader.image_loader import ImageFormat, sequential_batches
from data_pipeline.source import Source

JPEG, PNG = FORMATS["JPEG"][1], FORMATS["PNG"][1]
every_format = pytest.mark.parametrize(("name", "content"), FORMATS.values(), ids=FORMATS)


class Images(Source):
    """A source of one class."""

    def __init__(self, images: list[bytes]) -> None:
        self.images, self.labels = images, np.zeros(len(images), np.int64)

    def read(self, sample: int) -> np.ndarray:
        return np.frombuffer(self.images[sample], np.uint8)


def with_jpeg_size(content: bytes, width: int, height: int) -> bytes:
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(width: int, height: int) -> bytes:
    """A true PNG of one colour."""
    lines = zlib.compressobj(9)
    packed = b"".join(lines.compress(bytes(1 + width // 8)) for _ in range(height)) + lines.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return PNG[:8] + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")


@every_format
def test_a_whole_image_has_no_problem_and_the_size_it_says(name: str, content: bytes) -> None:
    assert image_header(content) == (name, 32, 24)
    assert image_problem(content) is None
    assert decoding_problem(content) is None


@every_format
def test_what_is_let_pass_decodes_in_training(name: str, content: bytes) -> None:
    (batch,) = sequential_batches(Images([content]), ImageFormat(24, 32), [0], batch=1)
    assert batch.images.shape == (1, 3, 24, 32)


@every_format
def test_an_image_cut_short_anywhere_is_seen_without_decoding(name: str, content: bytes) -> None:
    for length in range(16, len(content) - 1, 7):
        problem = image_problem(content[:length])
        assert problem is not None, f"cut to {length} of {len(content)} bytes"
        assert kind_of(problem) in ("truncated", "damaged header"), problem


@every_format
def test_bytes_behind_the_end_do_no_harm(name: str, content: bytes) -> None:
    assert image_problem(content + b"\0\0trailing") is None


def test_the_end_of_a_thumbnail_is_not_the_end_of_its_picture() -> None:
    exif = b"Exif\0\0" + JPEG
    whole = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + JPEG[2:]
    assert image_problem(whole) is None
    assert image_problem(whole[:-2]) == f"truncated: JPEG, no end mark (FF D9) in its {len(whole) - 2:,} bytes"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty: zero bytes"),
        (bytes(100), "wrong format: nothing but 100 zero bytes;"),
        (encoded("GIF", PICTURE.convert("P")), "wrong format: GIF;"),
        (encoded("AVIF"), "wrong format: the container of AVIF, HEIC or video (b'avif');"),
        (b"<!DOCTYPE html><title>404</title>", "wrong format: a web page;"),
        (b"hello world", "wrong format: it begins with 68 65 6c 6c 6f 20 77 6f; expected JPEG"),
        (b"\xff\xd8\xff\xd9", "truncated: JPEG, 4 bytes end before the picture begins"),
        (b"\xff\xd8\xff\xda\0\x08", "damaged header: JPEG, no frame (SOF)"),
        (with_jpeg_size(JPEG, 32, 0), "damaged header: JPEG of 32 x 0 pixels"),
        (PNG[:8] + png_chunk(b"IDAT", bytes(20)), "damaged header: PNG, begins with 20 bytes of b'IDAT'"),
        (PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:], "damaged: PNG, its chunk b'IDAT' at byte 33"),
        (b"P6\nwide 24 255\n" + bytes(99), "damaged header: PPM, invalid literal for int"),
        (b"P6\n32 24 deep\n" + bytes(99), "damaged header: PPM, invalid literal for int"),
        (b"II*\0\x08\0\0\0\0\0\0\0", "truncated: TIFF, its header has 4 bytes at byte 10, past the end of 12"),
        (b"RIFF\x14\0\0\0WEBPICCP" + bytes(20), "damaged header: WEBP, "),
    ],
)
def test_what_is_no_image_is_named_and_said_how(content: bytes, problem: str) -> None:
    found = image_problem(content)
    assert found is not None
    assert found.startswith(problem), found
    assert decoding_problem(content) == found


def test_a_header_that_its_bytes_cannot_hold_is_a_lie() -> None:
    assert image_problem(with_jpeg_size(JPEG, 8000, 8000)) == (
        f"false header: JPEG of 8,000 x 8,000 pixels, which {len(JPEG):,} bytes cannot hold"
    )
    head = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    lie = PNG[:8] + png_chunk(b"IHDR", head) + PNG[33:]
    assert image_problem(lie) == f"false header: PNG of 20,000 x 20,000 pixels, which {len(lie):,} bytes cannot hold"


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_emptiest_pictures_are_no_lie(mode: str, progressive: bool) -> None:
    flat = Image.new(mode, (1024, 1024))
    assert image_problem(encoded("JPEG", flat, progressive=progressive, optimize=True, quality=1)) is None
    assert image_problem(encoded("PNG", flat, optimize=True)) is None
    assert image_problem(png_bomb(1024, 1024)) is None


def test_a_true_bomb_is_seen_by_its_pixels_and_never_set_off() -> None:
    bomb = png_bomb(20_000, 20_000)
    assert len(bomb) < 60_000
    said = f"too many pixels: PNG of 20,000 x 20,000 = 400,000,000 in {len(bomb):,} bytes; the bound is 67,108,864"
    assert decoding_problem(bomb) == image_problem(bomb) == said
    assert image_problem(PNG, largest_pixels=32 * 24) is None
    assert kind_of(image_problem(PNG, largest_pixels=32 * 24 - 1) or "") == "too many pixels"


def test_only_a_decode_finds_what_lies_inside_the_picture() -> None:
    at = JPEG.index(b"\xff\xc4") + 5  # the code lengths of a Huffman table
    broken = JPEG[:at] + b"\xfe" * 16 + JPEG[at + 16 :]
    assert image_problem(broken) is None
    found = decoding_problem(broken)
    assert found is not None
    assert found.startswith("cannot be decoded: JPEG, ")


def cut_scan(content: bytes, share: float) -> bytes:
    """A JPEG of which a part of the last scan is left, with an end mark."""
    at = content.rindex(b"\xff\xda") + 14
    return content[: at + int((len(content) - 2 - at) * share)].rstrip(b"\xff") + b"\xff\xd9"


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_blocks": 3}, {"subsampling": 0}])
def test_half_a_picture_with_an_end_mark_is_told_from_a_whole_one(mode: str, options: dict[str, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    for picture in (Image.fromarray(noise), PICTURE, PICTURE.resize((1, 1))):
        whole = encoded("JPEG", picture.convert(mode), **options)
        assert decoding_problem(whole) is None
        assert decoding_problem(whole + b"more\xff\xd9") is None
    for share in (0.05, 0.5, 0.95):
        half = cut_scan(encoded("JPEG", Image.fromarray(noise).convert(mode), **options), share)
        assert image_problem(half) is None, "its outline is whole"
        assert kind_of(decoding_problem(half) or "") == "half a picture"


def test_a_progressive_jpeg_that_lacks_scans_is_half_a_picture() -> None:
    whole = encoded("JPEG", PICTURE, progressive=True)
    starts = [at for at in range(len(whole)) if whole.startswith(b"\xff\xda", at)]
    for scans in range(1, len(starts)):
        half = whole[: starts[scans]] + b"\xff\xd9"
        assert decoding_problem(half) == f"half a picture: JPEG, its {scans} scans do not bring all coefficients"


def test_pixels_that_dali_would_not_bring_to_0_to_255_are_refused() -> None:
    grey = np.asarray(PICTURE.convert("L"))
    assert image_problem(b"P5 32 24 15\n" + bytes(grey // 16)) == (
        "wrong format: PNM of 16 levels, which DALI does not decode to pixels of 0 to 255"
    )
    for picture, named in (
        (Image.fromarray(grey.astype(np.float32)), "floating-point"),
        (Image.fromarray(grey.astype(np.int32)), "32-bit"),
        (PICTURE.convert("1"), "without BitsPerSample"),
    ):
        assert (image_problem(encoded("TIFF", picture)) or "").startswith("wrong format: TIFF ")
        assert named in (image_problem(encoded("TIFF", picture)) or "")
    deep = b"P5 32 24 65535\n" + (grey.astype(">u2") * 257).tobytes()
    (batch,) = sequential_batches(Images([deep]), ImageFormat(24, 32), [0], batch=1)
    assert np.abs(batch.images[0, 0].numpy() * 127.5 + 127.5 - grey).max() < 0.01


def test_a_tiff_that_lies_on_its_side_is_fine() -> None:
    content = io.BytesIO()
    PICTURE.save(content, "TIFF", tiffinfo={274: 6})
    assert decoding_problem(content.getvalue()) is None


def test_bombs_of_rarer_formats_are_judged_by_our_bound_and_not_by_pillows() -> None:
    run_lengths = struct.pack("<IiiHHIIiiII", 40, 20_000, 20_000, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1024)
    bomb = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(run_lengths)) + run_lengths + b"\0\1"
    assert (image_problem(bomb) or "").startswith(
        "too many pixels: BMP of 20,000 x 20,000 = 400,000,000 in 1,080 bytes"
    )
    wide = FORMATS["transparent WebP"][1]
    wide = wide[:24] + b"\xff\xff\0\xff\xff\0" + wide[30:]
    assert (image_problem(wide) or "").startswith("too many pixels: WEBP, Image size (4294967296 pixels)")


def test_the_size_of_a_jpeg_2000_is_its_codestreams() -> None:
    content = FORMATS["JPEG 2000"][1]
    at = content.index(b"\xff\x4f\xff\x51") + 8
    problem = image_problem(content[:at] + struct.pack(">II", 20_000, 20_000) + content[at + 8 :])
    assert kind_of(problem or "") == "too many pixels"
