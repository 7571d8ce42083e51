from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.augment import Augmentation, affine_matrices, mirrored

SEED = 5
HEIGHT, WIDTH = 40, 30
EVERYTHING = Augmentation(mirror=0.5, rotate_degrees=20, scale=0.2, shear=0.1, translate=0.1)
SAMPLES = np.arange(20_000)
EPOCHS = np.zeros_like(SAMPLES)


def matrices(augmentation: Augmentation, epochs: NDArray[np.int64] = EPOCHS) -> NDArray[np.float64]:
    """Output to input, (n, 3, 3)."""
    found = affine_matrices(augmentation, epochs, SAMPLES, SEED, HEIGHT, WIDTH)
    assert found.dtype == np.float32
    last_row = np.broadcast_to([0.0, 0.0, 1.0], (len(found), 1, 3))
    return np.concatenate([found.astype(np.float64), last_row], axis=1)


def forward(augmentation: Augmentation) -> NDArray[np.float64]:
    """Input to output, (n, 3, 3)."""
    return np.linalg.inv(matrices(augmentation)).astype(np.float64)


def assert_uniform(values: NDArray[np.float64], low: float, high: float) -> None:
    assert low - 1e-4 <= values.min() <= values.max() <= high + 1e-4
    counts = np.histogram(values, bins=20, range=(low, high))[0]
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 19 + 5 * np.sqrt(2 * 19)


def test_nothing_set_is_the_identity() -> None:
    np.testing.assert_array_equal(matrices(Augmentation()), np.broadcast_to(np.eye(3), (len(SAMPLES), 3, 3)))
    assert not mirrored(Augmentation(), EPOCHS, SAMPLES, SEED).any()
    assert not Augmentation().warps
    assert not Augmentation().mirrors


def test_a_mirror_image_needs_no_interpolation_but_a_turn_does() -> None:
    assert not Augmentation(mirror=0.5).warps
    for name in ("rotate_degrees", "scale", "shear", "translate"):
        assert replace(Augmentation(), **{name: 0.1}).warps


def test_the_mirror_maps_the_first_column_to_the_last() -> None:
    corner = matrices(Augmentation(mirror=1.0)) @ [0.0, 0.0, 1.0]
    np.testing.assert_allclose(corner, np.broadcast_to([WIDTH, 0.0, 1.0], corner.shape))


@pytest.mark.parametrize("mirror", [0.0, 0.3, 1.0])
def test_mirrors_come_as_often_as_asked_and_the_same_in_both_forms(mirror: float) -> None:
    flips = mirrored(replace(EVERYTHING, mirror=mirror), EPOCHS, SAMPLES, SEED)
    assert abs(flips.mean() - mirror) < 0.02
    determinants = np.linalg.det(matrices(replace(EVERYTHING, mirror=mirror)))
    np.testing.assert_array_equal(determinants < 0, flips)


def test_turns_are_uniform_clockwise_and_about_the_centre() -> None:
    turns = forward(Augmentation(rotate_degrees=20))
    angles = np.degrees(np.arctan2(turns[:, 1, 0], turns[:, 0, 0]))
    assert_uniform(angles, -20, 20)
    centre = np.array([WIDTH / 2, HEIGHT / 2, 1.0])
    np.testing.assert_allclose(turns @ centre, np.broadcast_to(centre, (len(turns), 3)), atol=1e-4)
    np.testing.assert_allclose(np.linalg.det(turns), 1.0, atol=1e-5)


def test_scale_shear_and_shifts_are_uniform() -> None:
    assert_uniform(forward(Augmentation(scale=0.2))[:, 0, 0], 0.8, 1.2)
    assert_uniform(forward(Augmentation(shear=0.1))[:, 0, 1], -0.1, 0.1)
    shifts = forward(Augmentation(translate=0.1))[:, :2, 2]
    assert_uniform(shifts[:, 0], -0.1 * WIDTH, 0.1 * WIDTH)
    assert_uniform(shifts[:, 1], -0.1 * HEIGHT, 0.1 * HEIGHT)
    assert abs(np.corrcoef(shifts[:, 0], shifts[:, 1])[0, 1]) < 0.03


def test_all_together_are_the_product_of_each_alone() -> None:
    alone = {name: forward(replace(Augmentation(), **{name: getattr(EVERYTHING, name)})) for name in vars(EVERYTHING)}
    product = np.broadcast_to(np.eye(3), (len(SAMPLES), 3, 3))
    for name in ("translate", "rotate_degrees", "shear", "scale", "mirror"):
        product = product @ alone[name]
    np.testing.assert_allclose(forward(EVERYTHING), product, atol=1e-4)


def test_draws_depend_on_seed_epoch_and_sample_and_on_nothing_else() -> None:
    draw = affine_matrices(EVERYTHING, EPOCHS, SAMPLES, SEED, HEIGHT, WIDTH)
    some = np.array([17, 3, 12345])
    np.testing.assert_array_equal(draw[some], affine_matrices(EVERYTHING, EPOCHS[:3], some, SEED, HEIGHT, WIDTH))
    others = [
        affine_matrices(EVERYTHING, EPOCHS, SAMPLES, SEED + 1, HEIGHT, WIDTH),
        affine_matrices(EVERYTHING, EPOCHS + 1, SAMPLES, SEED, HEIGHT, WIDTH),
        affine_matrices(EVERYTHING, EPOCHS, SAMPLES + 1, SEED, HEIGHT, WIDTH),
    ]
    for other in others:
        assert abs(np.corrcoef(draw[:, 0, 1], other[:, 0, 1])[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("name", "value"), [("mirror", 1.5), ("mirror", -0.1), ("scale", 1.0), ("translate", float("nan")), ("shear", -1)]
)
def test_impossible_augmentations_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"augmentation {name} = .*: expected 0 to"):
        replace(Augmentation(), **{name: value})
