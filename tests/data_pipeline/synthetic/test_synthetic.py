from __future__ import annotations

import zlib
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.synthetic import people as synthetic
from data_pipeline.synthetic.canvas import Canvas
from data_pipeline.synthetic.faces import Face, View, faces_of, views_of
from data_pipeline.synthetic.people import identity_image, identity_images, identity_pictures
from data_pipeline.synthetic.portrait import portraits

Parameters = TypeVar("Parameters", Face, View)


def with_values(parameters: Parameters, **values: float) -> Parameters:
    """Some parameters of one picture changed."""
    return replace(parameters, **{name: np.array([value]) for name, value in values.items()})


def portrait(face: Face, view: View, size: int) -> NDArray[np.uint8]:
    """One picture."""
    picture: NDArray[np.uint8] = portraits(face, view, size)[0]
    return picture


def face_of(seed: int, identity: int) -> Face:
    return faces_of(seed, np.array([identity]))


def view_of(seed: int, identity: int, index: int) -> View:
    return views_of(seed, np.array([identity]), np.array([index]))


def rows(parameters: Face | View) -> NDArray[np.float64]:
    """A row of parameters for each picture."""
    return np.stack([getattr(parameters, each.name) for each in fields(parameters)], axis=1)


def middle(kind: Any) -> Any:
    """The parameters in the middle of their ranges, of one picture."""
    return kind(*(np.array([sum(each.metadata["range"]) / 2]) for each in fields(kind)))


STRAIGHT: View = with_values(middle(View), occlusion=-1.0, blur=0.0, noise=0.0, clutter=0.0)
AVERAGE: Face = middle(Face)
CHECKSUMS = [(16, 400, "676b8bcb"), (40, 400, "0741fbe8"), (64, 60, "63419636")]  # of what was drawn one by one


def test_a_picture_is_a_function_of_seed_identity_and_index() -> None:
    picture = identity_image(3, 5, seed=1)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    for _ in range(2):
        identity_image(4, 0, size=48)  # what was drawn before must not matter
        np.testing.assert_array_equal(identity_image(3, 5, seed=1), picture)
    others = [identity_image(*who, seed=seed) for *who, seed in ((3, 5, 2), (4, 5, 1), (3, 6, 1), (5, 3, 1))]
    assert all((other != picture).mean() > 0.5 for other in others)


def test_the_pictures_of_an_identity_are_its_first_ones() -> None:
    pictures = identity_images(7, 3, size=32)
    np.testing.assert_array_equal(pictures, [identity_image(7, index, size=32) for index in range(3)])


@pytest.mark.parametrize("size", [16, 33, 64])
def test_a_picture_does_not_know_which_others_are_painted_with_it(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    who, which = np.arange(30) * 7 % 11, np.arange(30)
    alone = np.stack(
        [identity_image(*each, size=size, seed=2) for each in zip(who.tolist(), which.tolist(), strict=True)]
    )
    for pixels in (1, 7 * size * size, synthetic.PIXELS_AT_A_TIME):
        monkeypatch.setattr(synthetic, "PIXELS_AT_A_TIME", pixels)
        np.testing.assert_array_equal(identity_pictures(who, which, size=size, seed=2), alone)


@pytest.mark.parametrize(("size", "pictures", "checksum"), CHECKSUMS)
def test_the_pixels_are_those_that_published_results_were_trained_on(size: int, pictures: int, checksum: str) -> None:
    who, which = np.divmod(np.arange(pictures), 4)
    drawn = [identity_pictures(who * 7919 % 100003, which, size=size, seed=seed) for seed in (0, 3)]
    assert f"{zlib.crc32(np.concatenate(drawn).tobytes()):08x}" == checksum


def test_identities_keep_their_face_and_change_their_circumstances() -> None:
    np.testing.assert_array_equal(rows(face_of(0, 9)), rows(faces_of(0, np.arange(5, 15)))[4:5])
    np.testing.assert_array_equal(rows(view_of(0, 9, 3)), rows(views_of(0, np.arange(15), np.full(15, 3)))[9:10])
    assert len(np.unique(rows(faces_of(0, np.arange(2000))), axis=0)) == 2000
    assert len(np.unique(rows(views_of(0, *np.divmod(np.arange(2000), 40))), axis=0)) == 2000


@pytest.mark.parametrize("kind", [Face, View])
def test_every_parameter_fills_its_range_and_no_two_go_together(kind: type) -> None:
    numbers = np.arange(4000)
    values = rows(faces_of(0, numbers) if kind is Face else views_of(0, *np.divmod(numbers, 40)))
    low, high = np.array([each.metadata["range"] for each in fields(kind)]).T
    shares = (values - low) / (high - low)
    assert shares.min() >= 0
    assert shares.max() < 1
    np.testing.assert_allclose(shares.mean(axis=0), 0.5, atol=5 * 12**-0.5 / 4000**0.5)
    correlations = np.corrcoef(shares.T) - np.eye(values.shape[1])
    assert np.abs(correlations).max() < 5.5 / 4000**0.5


@pytest.mark.parametrize("name", [each.name for each in fields(Face)])
def test_every_parameter_of_a_face_can_be_seen(name: str) -> None:
    low, high = next(each.metadata["range"] for each in fields(Face) if each.name == name)
    worn = with_values(AVERAGE, glasses=0.5, beard=0.6, moustache=0.5, hair_length=0.5, hair_greyness=-0.1)
    pictures = [portrait(with_values(worn, **{name: value}), STRAIGHT, 112).astype(int) for value in (low, high)]
    changed = np.abs(pictures[0] - pictures[1]).max(axis=2) > 3
    assert changed.sum() >= 12


@pytest.mark.parametrize("name", [each.name for each in fields(View)])
def test_every_circumstance_can_be_seen(name: str) -> None:
    low, high = next(each.metadata["range"] for each in fields(View) if each.name == name)
    lit = with_values(STRAIGHT, light_slant_radians=1.0, mouth_opening=0.05, noise=0.03, clutter=0.1)
    seen = with_values(lit, occlusion=0.5) if name.startswith("occluder") else lit
    values = (low, 0.05 * low + 0.95 * high)
    pictures = [portrait(AVERAGE, with_values(seen, **{name: value}), 64).astype(int) for value in values]
    assert (np.abs(pictures[0] - pictures[1]).max(axis=2) > 3).sum() >= 12


def test_a_person_looks_the_same_at_another_size() -> None:
    view = with_values(STRAIGHT, yaw_radians=0.4, roll_radians=0.2)
    small, large = portrait(face_of(0, 1), view, 48), portrait(face_of(0, 1), view, 96)
    halved = large.reshape(48, 2, 48, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small).mean() < 4


def test_light_from_the_left_brightens_the_left_cheek() -> None:
    view = with_values(STRAIGHT, light_slant_radians=1.0, light_angle_radians=np.pi, gradient_x=0.0)
    picture = portrait(AVERAGE, view, 64).astype(float)
    assert picture[36:40, 20:26].mean() > 1.2 * picture[36:40, 38:44].mean()


def test_a_head_turned_to_the_right_carries_its_eyes_to_the_right() -> None:
    left, right = (Canvas(with_values(STRAIGHT, yaw_radians=yaw), 64).spot(0.18, 0.0) for yaw in (-0.5, 0.5))
    assert right.u[0] > left.u[0]
    assert right.stretch[0] < left.stretch[0]


def test_a_canvas_reckons_in_float32() -> None:
    canvas = Canvas(STRAIGHT, 32)
    assert {each.dtype for each in (canvas.u, canvas.v, canvas.pixels)} == {np.dtype(np.float32)}


def test_extreme_circumstances_still_give_a_picture() -> None:
    for share in (0.0, 1.0):
        low_and_high = [each.metadata["range"] for each in fields(View)]
        view = View(*(np.full(20, low + share * (high - low)) for low, high in low_and_high))
        view = replace(view, field_row=view.field_row * 0.999, field_column=view.field_column * 0.999)
        assert portraits(faces_of(0, np.arange(20)), view, 40).std(axis=(1, 2, 3)).min() > 5


@pytest.mark.parametrize(("size", "identity", "message"), [(8, 0, "at least 16"), (64, -1, "count from 0")])
def test_impossible_pictures_are_refused(size: int, identity: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        identity_image(identity, 0, size=size)


def test_raw_pixels_do_not_recognise_a_person() -> None:
    pictures = np.stack([identity_images(identity, 10, size=32) for identity in range(100)]).reshape(1000, -1)
    centred = pictures - pictures.mean(axis=0)
    unit = (centred / np.linalg.norm(centred, axis=1, keepdims=True)).astype(np.float32)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    identities = np.repeat(np.arange(100), 10)
    assert (identities[cosines.argmax(axis=1)] == identities).mean() < 0.2


def test_the_features_of_a_face_recognise_a_person_once_the_circumstances_are_equal() -> None:
    views = [with_values(STRAIGHT, yaw_radians=yaw, smile=smile) for yaw, smile in ((0.0, 0.0), (0.06, 0.02))]
    pixels = np.stack([[portrait(face_of(0, i), view, 48).ravel() for i in range(60)] for view in views]).astype(float)
    unit = pixels / np.linalg.norm(pixels, axis=2, keepdims=True)
    assert ((unit[0] @ unit[1].T).argmax(axis=1) == np.arange(60)).mean() > 0.9
