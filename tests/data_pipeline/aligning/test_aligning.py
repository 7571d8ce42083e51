"""Similarity transforms against least squares in other words, pixels against a plain loop and against OpenCV."""

from __future__ import annotations

import io
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.aligning.landmarks import read_landmarks
from data_pipeline.aligning.similarity import TEMPLATE, similarity
from data_pipeline.aligning.source import AlignedSource
from data_pipeline.aligning.warp import aligned_face, warped
from data_pipeline.source import Source


def some_points(seed: int, noise: float = 3.0) -> NDArray[np.float64]:
    """Landmarks of a face that is turned, scaled and moved, none of them quite where the template has it."""
    random = np.random.default_rng(seed)
    angle, scale = random.uniform(-1, 1), random.uniform(0.4, 2.5)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return (TEMPLATE - 56) @ turn.T + random.uniform(60, 150, 2) + noise * random.standard_normal((5, 2))


def umeyama(points: NDArray[np.float64], template: NDArray[np.float64]) -> NDArray[np.float64]:
    """The paper's way: the singular vectors of the covariance, without reflection."""
    centred, wanted = points - points.mean(0), template - template.mean(0)
    left, singular, right = np.linalg.svd(wanted.T @ centred / len(points))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    turn = left @ np.diag(signs) @ right
    scale = (singular * signs).sum() / centred.var(0).sum()
    return np.concatenate([scale * turn, (template.mean(0) - scale * turn @ points.mean(0))[:, None]], 1)


@pytest.mark.parametrize("seed", range(20))
def test_a_similarity_is_umeyamas(seed: int) -> None:
    points = some_points(seed)
    np.testing.assert_allclose(similarity(points), umeyama(points, TEMPLATE), atol=1e-9)
    mirrored = points * [-1, 1]  # the best similarity of a mirrored face is none: it is still not mirrored
    np.testing.assert_allclose(similarity(mirrored), umeyama(mirrored, TEMPLATE), atol=1e-9)
    assert np.linalg.det(similarity(mirrored)[:, :2]) > 0


def test_a_similarity_by_hand() -> None:
    """A square of side 2, turned by a quarter, at half the size, five to the right."""
    square = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
    wanted = np.array([[5.0, 0.0], [5.0, 1.0], [4.0, 1.0], [4.0, 0.0]])
    np.testing.assert_allclose(similarity(square, wanted), [[0, -0.5, 5], [0.5, 0, 0]], atol=1e-12)


@pytest.mark.parametrize("points", [np.ones((5, 2)), np.full((5, 2), np.nan), TEMPLATE * np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_points_that_make_no_face_are_refused(points: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="expected 5 finite points, not all in one place"):
        similarity(points)


def picture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Noise, the hardest picture there is."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain_warp(pixels: NDArray[np.uint8], matrix: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Exact places, a loop over the pixels; what is outside is black."""
    whole = np.vstack([matrix, [0, 0, 1]])
    inverse, out = np.linalg.inv(whole), np.zeros((side, side, 3))
    for y, x in itertools.product(range(side), range(side)):
        at_x, at_y, _ = inverse @ [x, y, 1]
        left, top = math.floor(at_x), math.floor(at_y)
        for column, row in itertools.product((left, left + 1), (top, top + 1)):
            if 0 <= row < pixels.shape[0] and 0 <= column < pixels.shape[1]:
                out[y, x] += pixels[row, column] * (1 - abs(at_x - column)) * (1 - abs(at_y - row))
    return out


@pytest.mark.parametrize("seed", range(3))
def test_a_warp_is_the_plain_loop_s_but_for_places_of_a_32nd(seed: int) -> None:
    """Of noise a pixel may change by the 64th part of 255 along each axis, and by half a level of rounding."""
    points = some_points(seed)
    pixels, matrix = picture(seed, 60 + seed, 50), similarity(points - points.mean(0) + [25, 30])
    ours, plain = warped(pixels, matrix, 80), plain_warp(pixels, matrix, 80)
    difference = np.abs(ours - plain)
    assert difference.max() <= 2 * 255 / 64 + 0.5 + 0.3  # 0.3: places are added up in steps of 1/1024
    assert difference.mean() < 1
    assert 0 < (ours == 0).all(-1).mean() < 1, "some of the face lies outside of the picture, some inside"


def test_whole_pixels_stay_what_they_are() -> None:
    pixels = picture(5, 30, 20)
    moved = warped(pixels, np.array([[1.0, 0, 3], [0, 1, -2]]), 40)
    assert np.array_equal(moved[:28, 3:23], pixels[2:])
    assert not moved[:, :3].any()
    assert not moved[28:].any()
    half = warped(pixels, np.array([[1.0, 0, 0.5], [0, 1, 0]]), 10)
    mean = pixels[:10, :9].astype(int) + pixels[:10, 1:10]
    assert np.array_equal(half[:, 1:], (mean + 1) // 2)
    assert np.array_equal(half[:, 0], (pixels[:10, 0].astype(int) + 1) // 2), "half of it is the black outside"


def test_the_pixels_are_those_of_opencv() -> None:
    """The same as OpenCV 4, which the field aligned with; OpenCV 5 does not round places."""
    cv2: Any = pytest.importorskip("cv2")
    most = 0 if cv2.__version__.startswith("4.") else 8
    for seed in range(30):
        pixels, matrix = picture(seed, 60 + 5 * seed, 200 - 4 * seed), similarity(some_points(seed))
        theirs = cv2.warpAffine(pixels, matrix, (112, 112), borderValue=0.0)
        assert np.abs(warped(pixels, matrix, 112).astype(int) - theirs).max() <= most


def test_an_aligned_face_has_its_landmarks_where_the_template_has_them() -> None:
    """Five bright dots at the landmarks come to lie on the template, at any size."""
    points = some_points(3, noise=0.0)
    pixels = np.zeros((320, 320, 1), np.uint8)
    rows, columns = np.mgrid[:320, :320]
    for x, y in points:
        pixels[(columns - x) ** 2 + (rows - y) ** 2 < 12] = 255
    for side in (112, 224):
        face = aligned_face(pixels, points, side)
        for x, y in TEMPLATE * side / 112:
            assert face[round(y), round(x), 0] > 200
        assert (face > 128).mean() < 0.05


def listed(folder: Path, text: str) -> Path:
    path = folder / "points.txt"
    path.write_text(text)
    return path


FIVE = "1 2 3 4 5 6 7 8 9 10"


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        (f"a/1.jpg {FIVE} 0.5\n\nb.jpg {FIVE} 0.25\n", [0.5, 0.25]),
        (f"a/1.jpg\t{FIVE}\t0.5\nb.jpg\t{FIVE}\t0.25\n".replace(" ", "\t"), [0.5, 0.25]),
        (f"file,x,y\na/1.jpg,{FIVE}\nb.jpg,{FIVE}\n".replace(" ", ","), None),
        (f"\ufeffa/1.jpg {FIVE}\nb.jpg  {FIVE}\n", None),
    ],
)
def test_landmarks_are_read_with_any_separator(tmp_path: Path, text: str, scores: list[float] | None) -> None:
    found = read_landmarks(listed(tmp_path, text))
    assert found.names == ["a/1.jpg", "b.jpg"]
    assert found.points.tolist() == 2 * [[[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]]
    assert (None if found.scores is None else found.scores.tolist()) == scores


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no picture"),
        ("file x y\n", "names no picture"),
        ("a.jpg 1 2 3\n", "line 1 has 4 fields: expected a name, x and y of five points"),
        (f"a.jpg {FIVE} 1\nb.jpg {FIVE}\n", "line 2: 'b.jpg"),
        (f"a.jpg {FIVE}\nb.jpg {FIVE[:-2]} x\n", "line 2: 'b.jpg"),
    ],
)
def test_landmarks_that_are_none_are_refused_by_their_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_landmarks(listed(tmp_path, text))


class Pictures(Source):
    """Encoded pictures in memory."""

    def __init__(self, *pictures: bytes) -> None:
        self.pictures, self.labels = pictures, np.arange(len(pictures))

    def read(self, sample: int) -> NDArray[np.uint8]:
        return np.frombuffer(self.pictures[sample], np.uint8)


def png(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", **options)
    return buffer.getvalue()


def test_a_source_of_aligned_faces_gives_their_pixels_and_names_what_is_bad() -> None:
    pixels, points = picture(0, 200, 180), np.stack([some_points(0)] * 4)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down: the detector saw it upright
    points[3] = 7.0
    good = png(pixels)
    source = AlignedSource(Pictures(good, png(pixels[::-1, ::-1], exif=exif), good[:-30], good), points)
    for sample in (0, 1):
        with Image.open(io.BytesIO(source.read(sample).tobytes())) as image:
            assert np.array_equal(np.asarray(image), aligned_face(pixels, points[0]))
    with pytest.raises(ValueError, match="sample 2: truncated"):
        source.read(2)
    with pytest.raises(ValueError, match="sample 3 cannot be aligned: landmarks"):
        source.read(3)
    with pytest.raises(ValueError, match=r"landmarks of shape \(3, 5, 2\) for 4 images"):
        AlignedSource(Pictures(good, good, good, good), points[:3])
