import math
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.order.balanced import BalancedOrder
from data_pipeline.order.shuffled import SampleOrder, rank_positions

SEED = 20240607
EACH = 3
SIZES = [3, 9, 4, 1, 17, 2, 5, 6, 30, 3, 7]  # images of each identity


def grouped_labels(sizes: list[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(sizes)), sizes)


def mixed_labels(sizes: list[int]) -> NDArray[np.int64]:
    return np.random.default_rng(1).permutation(grouped_labels(sizes))


def order(labels: NDArray[np.int64], identities: int, each: int = EACH, seed: int = SEED) -> BalancedOrder:
    return BalancedOrder(labels, global_batch=identities * each, images_each=each, seed=seed)


def batches(chosen: BalancedOrder, count: int, first: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Epochs and samples, (count, identities, images of each)."""
    shape = (count, chosen.identities_per_batch, chosen.images_each)
    begin = first * math.prod(shape[1:])
    epochs, samples = chosen.samples_at(np.arange(begin, begin + math.prod(shape)))
    return epochs.reshape(shape), samples.reshape(shape)


@pytest.mark.parametrize("identities", [1, 2, 3, 4, 5, 11])
@pytest.mark.parametrize("labels", [grouped_labels(SIZES), mixed_labels(SIZES)], ids=["grouped", "mixed"])
def test_every_global_batch_has_m_images_of_each_of_k_identities(labels: NDArray[np.int64], identities: int) -> None:
    for batch in batches(order(labels, identities), 100)[1]:
        for visit in labels[batch]:
            assert len(set(visit.tolist())) == 1
        assert len(set(labels[batch][:, 0].tolist())) == identities


@pytest.mark.parametrize("each", [1, 2, 3, 4, 5])
def test_a_visit_shows_different_images_of_an_identity_that_has_enough(each: int) -> None:
    labels = mixed_labels(SIZES)
    for batch in batches(order(labels, 4, each), 100)[1]:
        for visit in batch.tolist():
            available = SIZES[labels[visit[0]]]
            assert len(set(visit)) == min(each, available)
            repeats = Counter(visit).values()
            assert max(repeats) - min(repeats) <= (1 if available < each else 0)


@pytest.mark.parametrize("identities", [1, 3, 4, 5])
def test_every_round_visits_every_identity_once(identities: int) -> None:
    labels = grouped_labels(SIZES)
    visited = labels[batches(order(labels, identities), 10 * len(SIZES))[1][:, :, 0]].reshape(-1, len(SIZES))
    for turn in visited:
        assert sorted(turn.tolist()) == list(range(len(SIZES)))
    assert len({tuple(turn) for turn in visited.tolist()}) == len(visited)


@pytest.mark.parametrize("each", [1, 2, 3, 4])
def test_every_image_of_every_identity_is_shown_in_turn(each: int) -> None:
    labels = mixed_labels(SIZES)
    samples = batches(order(labels, 1, each), 40 * len(SIZES))[1].reshape(-1, each)
    for identity, size in enumerate(SIZES):
        visits = samples[labels[samples[:, 0]] == identity]
        per_pass = -(-size // each)
        for first in range(0, len(visits) - per_pass + 1, per_pass):
            shown = Counter(visits[first : first + per_pass].ravel().tolist())
            assert set(shown) == set(np.flatnonzero(labels == identity).tolist())
            assert max(shown.values()) - min(shown.values()) <= 1


@pytest.mark.parametrize("each", [1, 3, 4])
def test_no_image_is_changed_by_the_same_draws_twice(each: int) -> None:
    epochs, samples = batches(order(mixed_labels(SIZES), 4, each), 300)
    pairs = np.stack([epochs.ravel(), samples.ravel()])
    assert np.unique(pairs, axis=1).shape == pairs.shape


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_any_number_of_ranks_sees_the_same_global_batches(size: int) -> None:
    chosen = order(mixed_labels(SIZES), 4)
    for step in (0, 2, 3, 1000):
        parts = [chosen.samples_at(rank_positions(step, 12, rank, size)) for rank in range(size)]
        whole = batches(chosen, 1, first=step)
        np.testing.assert_array_equal(np.concatenate([epochs for epochs, _ in parts]), whole[0].ravel())
        np.testing.assert_array_equal(np.concatenate([samples for _, samples in parts]), whole[1].ravel())


def test_positions_may_be_asked_for_in_any_order() -> None:
    chosen = order(mixed_labels(SIZES), 5)
    positions = np.random.default_rng(0).permutation(1500)
    straight, mixed = chosen.samples_at(np.arange(1500)), chosen.samples_at(positions)
    np.testing.assert_array_equal(straight[0][positions], mixed[0])
    np.testing.assert_array_equal(straight[1][positions], mixed[1])


def test_identities_and_images_are_equally_likely_at_every_place_of_a_batch() -> None:
    """Chi-square over places x identities and places x images; the seams of rounds count as well as their middles."""
    sizes, identities, count = [5] * 10, 3, 2000
    samples = batches(order(grouped_labels(sizes), identities, 2), count)[1]
    for place in range(identities):
        assert chi_square_per_freedom(samples[:, place, 0] // 5, 10) < 3
        for image in range(2):
            assert chi_square_per_freedom(samples[:, place, image] % 5, 5) < 4
    first, second = samples[:, 0, 0] // 5, samples[:, 1, 0] // 5
    apart = (second - first) % 10  # any identity meets any other, and none itself
    assert apart.all()
    assert chi_square_per_freedom(first * 9 + apart - 1, 90) < 1.6


def chi_square_per_freedom(numbers: NDArray[np.int64], kinds: int) -> float:
    counts, expected = np.bincount(numbers, minlength=kinds), numbers.size / kinds
    return float(((counts - expected) ** 2 / expected).sum()) / (kinds - 1)


def test_identities_are_equally_frequent_whatever_they_own() -> None:
    labels = mixed_labels(SIZES)
    shown = labels[batches(order(labels, 4), 11 * 5)[1]]
    assert np.bincount(shown.ravel()).tolist() == [4 * 5 * EACH] * len(SIZES)


def test_labels_that_nobody_has_are_passed_over() -> None:
    labels = np.array([7, 2, 2, 7, 900, 900])
    samples = batches(order(labels, 1, 2), 6)[1]
    assert set(labels[samples].ravel().tolist()) == {2, 7, 900}


def test_the_order_of_a_seed_never_changes() -> None:
    """A run that is resumed after an upgrade must go on in the order it began with."""
    epochs, samples = order(mixed_labels(SIZES), 3).samples_at(np.arange(95, 110))
    assert samples.tolist() == [9, 15, 62, 52, 37, 86, 2, 36, 22, 10, 63, 13, 51, 5, 50]
    assert epochs.tolist() == [8, 6, 6, 6, *[9] * 7, 10, 10, 9, 9]


def test_seeds_differ() -> None:
    labels = mixed_labels(SIZES)
    first, second = (batches(order(labels, 4, seed=seed), 20)[1] for seed in (1, 2))
    assert (first != second).mean() > 0.8


def test_a_balanced_order_is_a_sample_order() -> None:
    chosen: SampleOrder = order(grouped_labels(SIZES), 4)
    assert [part.shape for part in chosen.samples_at(np.arange(0))] == [(0,), (0,)]


@pytest.mark.parametrize(
    ("batch", "each", "message"),
    [
        (10, 3, "a global batch of 10 images, 3 of each identity: expected a multiple"),
        (2, 3, "a global batch of 2 images, 3 of each identity"),
        (6, 0, "6 images, 0 of each"),
        (18, 3, "11 identities for batches of 6 different ones: expected at least 12"),
        (36, 3, "11 identities for batches of 12 different ones: expected at least 24"),
    ],
)
def test_batches_that_cannot_be_balanced_are_refused(batch: int, each: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BalancedOrder(grouped_labels(SIZES), global_batch=batch, images_each=each, seed=SEED)


def test_a_large_set_takes_little_memory_and_little_time() -> None:
    labels = np.repeat(np.arange(200_000), 10)
    tracemalloc.start()
    chosen = BalancedOrder(labels, global_batch=512, images_each=4, seed=SEED)
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held_bytes < 17 * 200_000
    fastest = math.inf
    for step in range(20):
        begin = time.perf_counter()
        chosen.samples_at(rank_positions(step, 512, 0, 4))
        fastest = min(fastest, time.perf_counter() - begin)
    assert fastest < 10e-3
