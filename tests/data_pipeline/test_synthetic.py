from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from data_pipeline.canvas import Canvas
from data_pipeline.faces import Face, View, face_of, view_of
from data_pipeline.portrait import portrait
from data_pipeline.synthetic import identity_image, identity_images

STRAIGHT = replace(
    View(*(sum(each.metadata["range"]) / 2 for each in fields(View))), occlusion=-1.0, blur=0.0, noise=0.0, clutter=0.0
)
AVERAGE = Face(*(sum(each.metadata["range"]) / 2 for each in fields(Face)))


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


def test_identities_keep_their_face_and_change_their_circumstances() -> None:
    assert face_of(0, 9) == face_of(0, 9)
    assert len({face_of(0, identity) for identity in range(2000)}) == 2000
    assert len({view_of(0, identity, index) for identity in range(50) for index in range(40)}) == 2000


@pytest.mark.parametrize("kind", [Face, View])
def test_every_parameter_fills_its_range_and_no_two_go_together(kind: type) -> None:
    people = [face_of(0, i) if kind is Face else view_of(0, i // 40, i % 40) for i in range(4000)]
    names = [each.name for each in fields(kind)]
    values = np.array([[getattr(person, name) for name in names] for person in people])
    low, high = np.array([each.metadata["range"] for each in fields(kind)]).T
    shares = (values - low) / (high - low)
    assert shares.min() >= 0
    assert shares.max() < 1
    np.testing.assert_allclose(shares.mean(axis=0), 0.5, atol=5 * 12**-0.5 / 4000**0.5)
    correlations = np.corrcoef(shares.T) - np.eye(len(names))
    assert np.abs(correlations).max() < 5.5 / 4000**0.5


@pytest.mark.parametrize("name", [each.name for each in fields(Face)])
def test_every_parameter_of_a_face_can_be_seen(name: str) -> None:
    low, high = next(each.metadata["range"] for each in fields(Face) if each.name == name)
    worn = replace(AVERAGE, glasses=0.5, beard=0.6, moustache=0.5, hair_length=0.5, hair_greyness=-0.1)
    pictures = [portrait(replace(worn, **{name: value}), STRAIGHT, 112).astype(int) for value in (low, high)]
    changed = np.abs(pictures[0] - pictures[1]).max(axis=2) > 3
    assert changed.sum() >= 12


@pytest.mark.parametrize("name", [each.name for each in fields(View)])
def test_every_circumstance_can_be_seen(name: str) -> None:
    low, high = next(each.metadata["range"] for each in fields(View) if each.name == name)
    lit = replace(STRAIGHT, light_slant_radians=1.0, mouth_opening=0.05, noise=0.03, clutter=0.1)
    seen = replace(lit, occlusion=0.5) if name.startswith("occluder") else lit
    values = (low, 0.05 * low + 0.95 * high)
    pictures = [portrait(AVERAGE, replace(seen, **{name: value}), 64).astype(int) for value in values]
    assert (np.abs(pictures[0] - pictures[1]).max(axis=2) > 3).sum() >= 12


def test_a_person_looks_the_same_at_another_size() -> None:
    view = replace(STRAIGHT, yaw_radians=0.4, roll_radians=0.2)
    small, large = portrait(face_of(0, 1), view, 48), portrait(face_of(0, 1), view, 96)
    halved = large.reshape(48, 2, 48, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small).mean() < 4


def test_light_from_the_left_brightens_the_left_cheek() -> None:
    view = replace(STRAIGHT, light_slant_radians=1.0, light_angle_radians=np.pi, gradient_x=0.0)
    picture = portrait(AVERAGE, view, 64).astype(float)
    assert picture[36:40, 20:26].mean() > 1.2 * picture[36:40, 38:44].mean()


def test_a_head_turned_to_the_right_carries_its_eyes_to_the_right() -> None:
    left, right = (Canvas(replace(STRAIGHT, yaw_radians=yaw), 64).spot(0.18, 0.0) for yaw in (-0.5, 0.5))
    assert right.u > left.u
    assert right.stretch < left.stretch


def test_a_canvas_reckons_in_float32() -> None:
    canvas = Canvas(STRAIGHT, 32)
    assert {each.dtype for each in (canvas.u, canvas.v, canvas.pixels)} == {np.dtype(np.float32)}


def test_extreme_circumstances_still_give_a_picture() -> None:
    for share in (0.0, 1.0):
        low_and_high = [each.metadata["range"] for each in fields(View)]
        view = View(*(low + share * (high - low) for low, high in low_and_high))
        view = replace(view, field_row=min(view.field_row, 0.999), field_column=min(view.field_column, 0.999))
        for identity in range(20):
            assert portrait(face_of(0, identity), view, 40).std() > 5


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
    views = [replace(STRAIGHT, yaw_radians=yaw, smile=smile) for yaw, smile in ((0.0, 0.0), (0.06, 0.02))]
    rows = np.stack([[portrait(face_of(0, i), view, 48).ravel() for i in range(60)] for view in views]).astype(float)
    unit = rows / np.linalg.norm(rows, axis=2, keepdims=True)
    assert ((unit[0] @ unit[1].T).argmax(axis=1) == np.arange(60)).mean() > 0.9
