import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.augment.augmentation import BOUNDS, Augmentation
from data_pipeline.augment.draws import CHANCE, Change, Draws, Parameters
from data_pipeline.augment.geometry import affine_matrices, boxes, geometry_parameters, mirrored
from data_pipeline.augment.pixels import pixel_parameters

SEED = 5
HEIGHT, WIDTH = 40, 30
EVERYTHING = Augmentation(mirror=0.5, rotate_degrees=20, scale=0.2, shear=0.1, translate=0.1)
SAMPLES = np.arange(20_000)
EPOCHS = np.zeros_like(SAMPLES)
DRAWS = Draws(EPOCHS, SAMPLES, SEED)
FIRST_FLIPS = "0080d9b985a3e16484459492e7e7841f372bebf3d667839364e18a852d1b3c19"
FIRST_MATRICES = [
    [[-0.948441, -0.328586, 35.400837], [-0.330136, 0.947901, 5.618848]],
    [[0.883540, 0.149351, -2.956206], [-0.219499, 0.865756, 6.141124]],
    [[-1.183440, -0.230134, 35.943840], [-0.327450, 1.155871, -0.811982]],
]
FIRST_CHANCES = "1ec22c7050a7bb2258fce8e22645df239875ef1d4e98b7f04e495eb8ff8e999a"
MOVES = ("mirror", "rotate_degrees", "scale", "shear", "translate")
CHANGES = ("crop", "colour", "grey", "blur", "low_resolution", "jpeg", "erase")
EVEN_CHANCES: dict[str, Any] = dict.fromkeys(CHANGES, 0.4)
EVERY_CHANGE = replace(
    EVERYTHING,
    **EVEN_CHANCES,
    warp=0.4,
    hue_degrees=25,
    blur_pixels=2.0,
    low_resolution_share=0.2,
    jpeg_quality=16,
)


def parameters(
    augmentation: Augmentation, draws: Draws = DRAWS, height: int = HEIGHT, width: int = WIDTH
) -> Parameters:
    drawn = (augmentation, draws, height, width)
    return geometry_parameters(*drawn) | pixel_parameters(*drawn)


def only(name: str, value: float) -> Augmentation:
    given: dict[str, Any] = {name: value}
    return Augmentation(**given)


def matrices(augmentation: Augmentation) -> NDArray[np.float64]:
    """Output to input, (n, 3, 3)."""
    found = affine_matrices(augmentation, DRAWS, HEIGHT, WIDTH)
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
    assert not mirrored(Augmentation(), DRAWS).any()
    assert parameters(Augmentation()) == {}


def test_a_mirror_image_needs_no_interpolation_but_a_turn_does() -> None:
    assert not Augmentation(mirror=0.5).warps
    for name in ("rotate_degrees", "scale", "shear", "translate"):
        assert only(name, 0.1).warps


def test_the_mirror_maps_the_first_column_to_the_last() -> None:
    corner = matrices(Augmentation(mirror=1.0)) @ [0.0, 0.0, 1.0]
    np.testing.assert_allclose(corner, np.broadcast_to([WIDTH, 0.0, 1.0], corner.shape))


@pytest.mark.parametrize("mirror", [0.0, 0.3, 1.0])
def test_mirrors_come_as_often_as_asked_and_the_same_in_both_forms(mirror: float) -> None:
    flips = mirrored(replace(EVERYTHING, mirror=mirror), DRAWS)
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
    alone = {name: forward(only(name, getattr(EVERYTHING, name))) for name in MOVES}
    product = np.broadcast_to(np.eye(3), (len(SAMPLES), 3, 3))
    for name in ("translate", "rotate_degrees", "shear", "scale", "mirror"):
        product = product @ alone[name]
    np.testing.assert_allclose(forward(EVERYTHING), product, atol=1e-4)


def test_draws_depend_on_seed_epoch_and_sample_and_on_nothing_else() -> None:
    draw = affine_matrices(EVERYTHING, DRAWS, HEIGHT, WIDTH)
    some = np.array([17, 3, 12345])
    few = Draws(EPOCHS[:3], some, SEED)
    np.testing.assert_array_equal(draw[some], affine_matrices(EVERYTHING, few, HEIGHT, WIDTH))
    everywhere = parameters(EVERY_CHANGE)
    for name, column in parameters(EVERY_CHANGE, few).items():
        np.testing.assert_array_equal(column, everywhere[name][some], err_msg=name)
    others = [
        Draws(EPOCHS, SAMPLES, SEED + 1),
        Draws(EPOCHS + 1, SAMPLES, SEED),
        Draws(EPOCHS, SAMPLES + 1, SEED),
    ]
    for other in others:
        moved = affine_matrices(EVERYTHING, other, HEIGHT, WIDTH)
        assert abs(np.corrcoef(draw[:, 0, 1], moved[:, 0, 1])[0, 1]) < 0.03
        for change in Change:
            assert abs(np.corrcoef(DRAWS.of(change)[:, CHANCE], other.of(change)[:, CHANCE])[0, 1]) < 0.03


def test_mirrors_and_warps_of_earlier_runs_are_drawn_again() -> None:
    """Values of the first release: a run that goes on must see what it would have seen."""
    flips = mirrored(EVERYTHING, DRAWS)
    assert hashlib.sha256(np.packbits(flips).tobytes()).hexdigest() == FIRST_FLIPS
    found = affine_matrices(EVERYTHING, Draws(np.array([0, 3, 1]), np.array([0, 17, 12345]), SEED), HEIGHT, WIDTH)
    np.testing.assert_allclose(found, FIRST_MATRICES, atol=2e-5)
    chances = np.stack([DRAWS.of(change)[:, CHANCE] < 0.5 for change in Change])
    assert hashlib.sha256(np.packbits(chances).tobytes()).hexdigest() == FIRST_CHANCES


def test_each_kind_of_change_is_drawn_by_itself() -> None:
    streams = np.concatenate([DRAWS.moves(), *(DRAWS.of(change) for change in Change)], axis=1)
    between = np.corrcoef(streams.T) - np.eye(streams.shape[1])
    assert np.abs(between).max() < 5 / np.sqrt(len(SAMPLES))


def test_switching_a_change_on_alters_no_other() -> None:
    together = parameters(EVERY_CHANGE)
    for name in CHANGES:
        others: dict[str, Any] = dict.fromkeys({*CHANGES, "warp", "mirror"} - {name}, 0.0)
        for column, values in parameters(replace(EVERY_CHANGE, **others)).items():
            np.testing.assert_array_equal(together[column], values, err_msg=column)


@pytest.mark.parametrize("chance", [0.3, 1.0])
@pytest.mark.parametrize("name", CHANGES)
def test_changes_come_as_often_as_asked(name: str, chance: float) -> None:
    drawn = parameters(only(name, chance))[name]
    assert drawn.dtype == np.bool_
    assert abs(drawn.mean() - chance) < 0.02
    assert drawn.all() == (chance == 1.0)


def test_warps_come_as_often_as_asked_and_mirrors_without_them() -> None:
    assert set(parameters(EVERYTHING)) == {"matrix"}
    found = parameters(replace(EVERYTHING, warp=0.3))
    assert set(found) == {"matrix", "warp", "flip"}
    assert abs(found["warp"].mean() - 0.3) < 0.02
    np.testing.assert_array_equal(found["matrix"], parameters(EVERYTHING)["matrix"])
    np.testing.assert_array_equal(found["flip"], mirrored(EVERYTHING, DRAWS))
    assert set(parameters(replace(EVERYTHING, warp=0.0))) == {"flip"}
    assert set(parameters(replace(EVERYTHING, warp=0.3, mirror=0.0))) == {"matrix", "warp"}


def test_strengths_are_uniform_in_their_ranges() -> None:
    found = {name: column.astype(np.float64) for name, column in parameters(EVERY_CHANGE).items()}
    for name in ("brightness", "contrast", "saturation"):
        reach = getattr(EVERY_CHANGE, name)
        assert_uniform(found[name], 1 - reach, 1 + reach)
    assert_uniform(found["hue_degrees"], -25, 25)
    assert_uniform(found["blur_pixels"], 0.5, 2.0)
    assert set(np.unique(found["jpeg_quality"])) == set(range(16, 96))
    assert_uniform(found["jpeg_quality"], 16, 96)
    size = found["low_resolution_size"]
    assert size.min(axis=0).tolist() == [HEIGHT * 0.2, WIDTH * 0.2]
    assert size.max(axis=0).tolist() == [HEIGHT, WIDTH]
    assert np.abs(size[:, 0] / HEIGHT - size[:, 1] / WIDTH).max() <= 0.5 / HEIGHT + 0.5 / WIDTH


@pytest.mark.parametrize(("smallest", "largest", "aspect"), [(0.5, 1.0, 1.25), (0.01, 1.0, 10.0), (0.02, 0.2, 3.0)])
def test_boxes_lie_inside_with_even_areas_and_bounded_aspects(smallest: float, largest: float, aspect: float) -> None:
    starts, ends = boxes(DRAWS.of(Change.CROP), smallest, largest, aspect)
    sizes = ends - starts
    assert starts.min() >= 0.0
    assert ends.max() <= 1.0
    assert_uniform(sizes.prod(axis=1), smallest, largest)
    ratios = np.log(sizes[:, 1] / sizes[:, 0])
    assert np.abs(ratios).max() <= np.log(aspect) + 1e-9
    free = sizes.prod(axis=1) < 1 / aspect  # where every aspect fits
    assert free.sum() > 1000
    assert_uniform(ratios[free], -np.log(aspect), np.log(aspect))
    roomy = sizes[:, 0] < 0.99
    assert_uniform((starts[:, 0] / (1 - sizes[:, 0]))[roomy], 0.0, 1.0)


@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (3, 3), (1, 8)])
def test_an_erased_box_is_whole_pixels_inside_the_image(height: int, width: int) -> None:
    found = parameters(Augmentation(erase=1.0, erase_area=0.3), height=height, width=width)
    starts, sizes = found["erase_start"], found["erase_size"]
    for values in (starts, sizes):
        np.testing.assert_array_equal(values, np.rint(values))
    assert starts.min() >= 0
    assert sizes.min() >= 1
    assert ((starts + sizes) <= [height, width]).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mirror", 1.5),
        ("mirror", -0.1),
        ("scale", 1.0),
        ("translate", float("nan")),
        ("shear", -1),
        ("blur", 2.0),
        ("blur_pixels", 0.0),
        ("crop_area", 0.0),
        ("crop_aspect", 0.5),
        ("jpeg_quality", 0),
        ("erase_area", 1.1),
    ],
)
def test_impossible_augmentations_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"augmentation {name} = .*: expected .* to"):
        only(name, value)


def test_a_broken_jpeg_quality_is_refused() -> None:
    with pytest.raises(ValueError, match=r"jpeg_quality = 50\.5: expected a whole number"):
        only("jpeg_quality", 50.5)


def test_every_field_has_bounds() -> None:
    assert set(BOUNDS) == set(vars(Augmentation()))
