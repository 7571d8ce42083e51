import math
import time
import tracemalloc
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.order.shuffled import (
    SampleOrder,
    ShuffledOrder,
    permuted,
    permuted_each,
    rank_positions,
    samples_at,
)

SEED = 20240607


def epochs_of(num_samples: int, num_epochs: int, seed: int = SEED) -> NDArray[np.int64]:
    """Samples in their order, one row per epoch."""
    positions = np.arange(num_samples * num_epochs)
    return samples_at(positions, num_samples, seed)[1].reshape(num_epochs, num_samples)


def surprise(counts: NDArray[np.int64] | list[int], freedom: int, factor: float = 1.0) -> float:
    """How many standard deviations too uneven counts are that should be equal: their chi-square, made normal.

    The cube root of chi-square over its degrees of freedom is nearly normal (Wilson and Hilferty, 1931).
    """
    counts = np.asarray(counts)
    expected = counts.sum() / counts.size
    chi_square = factor * float(((counts - expected) ** 2 / expected).sum())
    variance = 2 / (9 * freedom)
    return (math.pow(chi_square / freedom, 1 / 3) - (1 - variance)) / math.sqrt(variance)


def table_surprise(table: NDArray[np.int64]) -> float:
    """The same for a sum of permutation matrices, whose rows and columns are all equally full."""
    size = len(table)
    return surprise(table.ravel(), (size - 1) ** 2, factor=(size - 1) / size)


def pair_counts(first: NDArray[np.int64], second: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return np.bincount(first.ravel() * size + second.ravel(), minlength=size * size).reshape(size, size)


@pytest.mark.parametrize("num_samples", [*range(1, 70), 1000, 1023, 1024, 1025, 65537])
def test_an_epoch_holds_every_sample_once(num_samples: int) -> None:
    for row in epochs_of(num_samples, 3):
        np.testing.assert_array_equal(np.sort(row), np.arange(num_samples))


@pytest.mark.parametrize("num_samples", [2**40, 2**40 - 12345, 10**11 + 3])
def test_enormous_sets_have_an_order_too(num_samples: int) -> None:
    places = np.concatenate([np.arange(50_000), num_samples - 1 - np.arange(50_000)])
    samples = permuted(places, num_samples, SEED, 3)
    assert np.unique(samples).size == places.size
    assert 0 <= samples.min() <= samples.max() < num_samples
    assert surprise(np.bincount(samples * 100 // num_samples, minlength=100), 99) < 4


@pytest.mark.parametrize("num_samples", [2, 3, 4, 5, 6, 7])
def test_all_permutations_of_few_samples_are_equally_frequent(num_samples: int) -> None:
    kinds = math.factorial(num_samples)
    found = Counter(map(tuple, epochs_of(num_samples, 40 * kinds).tolist()))
    counts = [found[kind] for kind in permutations(range(num_samples))]
    assert sum(counts) == 40 * kinds
    assert surprise(counts, kinds - 1) < 4


@pytest.mark.parametrize(("num_samples", "num_epochs"), [(2, 4000), (3, 4000), (7, 4000), (30, 4000), (101, 3000)])
def test_every_sample_is_as_likely_at_every_place(num_samples: int, num_epochs: int) -> None:
    rows = epochs_of(num_samples, num_epochs)
    places = np.broadcast_to(np.arange(num_samples), rows.shape)
    assert table_surprise(pair_counts(places, rows, num_samples)) < 4


def test_a_thousand_samples_spread_over_all_places() -> None:
    rows = epochs_of(1000, 400)
    places = np.broadcast_to(np.arange(1000), rows.shape)
    assert surprise(pair_counts(places // 20, rows // 20, 50).ravel(), 49**2) < 4


@pytest.mark.parametrize("num_samples", [7, 30, 101])
def test_neighbours_in_an_epoch_are_unrelated(num_samples: int) -> None:
    rows = epochs_of(num_samples, 3000)
    following = pair_counts(rows[:, :-1], rows[:, 1:], num_samples)
    apart = ~np.eye(num_samples, dtype=bool)
    assert not following[~apart].any()
    assert surprise(following[apart], num_samples * (num_samples - 1) - 1) < 4
    distances = np.bincount(((rows[:, 1:] - rows[:, :-1]) % num_samples).ravel(), minlength=num_samples)[1:]
    assert surprise(distances, num_samples - 2) < 4


def test_neighbours_in_a_large_epoch_are_unrelated() -> None:
    row = epochs_of(1_000_003, 1)[0]
    distances = (row[1:] - row[:-1]) % row.size
    assert surprise(np.bincount(distances * 1000 // row.size, minlength=1000), 999) < 4
    assert abs(np.corrcoef(row[1:], row[:-1])[0, 1]) < 5e-3


@pytest.mark.parametrize("num_samples", [7, 30, 101])
def test_epochs_and_seeds_are_unrelated(num_samples: int) -> None:
    rows, others = epochs_of(num_samples, 3000), epochs_of(num_samples, 3000, seed=SEED + 1)
    assert table_surprise(pair_counts(rows[:-1], rows[1:], num_samples)) < 4
    assert table_surprise(pair_counts(rows, others, num_samples)) < 4


def test_the_surprise_of_a_biased_order_is_large() -> None:
    """The measure above must be able to fail: a shuffle buffer of a fifth of the set, in place of a permutation."""
    rng, size = np.random.default_rng(0), 30
    rows = np.argsort(np.arange(size) + rng.uniform(0, 6, (3000, size)), axis=1)
    places = np.broadcast_to(np.arange(size), rows.shape)
    assert table_surprise(pair_counts(places, rows, size)) > 100


def test_the_order_of_a_seed_never_changes() -> None:
    """A run that is resumed after an upgrade must go on in the order it began with."""
    assert permuted(np.arange(10), 10, 1, 0).tolist() == [7, 4, 9, 8, 6, 0, 2, 5, 1, 3]
    assert permuted(np.arange(5), 5_822_653, 7, 11).tolist() == [3460750, 2824109, 115594, 4406522, 5612590]


def test_positions_run_through_the_epochs() -> None:
    epochs, samples = samples_at(np.arange(5, 25), 10, SEED)
    assert epochs.tolist() == [0] * 5 + [1] * 10 + [2] * 5
    for epoch in range(3):
        places = np.arange(5, 25)[epochs == epoch] % 10
        np.testing.assert_array_equal(samples[epochs == epoch], permuted(places, 10, SEED, epoch))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_the_global_batch_is_the_same_for_any_number_of_ranks(size: int) -> None:
    for step in (0, 1, 1000):
        parts = [rank_positions(step, 10, rank, size) for rank in range(size)]
        np.testing.assert_array_equal(np.concatenate(parts), np.arange(10 * step, 10 * step + 10))
        lengths = [part.size for part in parts]
        assert max(lengths) - min(lengths) <= 1
        assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 3, 4), (4, 1, 3)])
def test_an_epoch_run_with_changing_numbers_of_ranks_sees_every_sample_once(sizes: tuple[int, ...]) -> None:
    seen: list[int] = []
    for step in range(30):
        size = sizes[step // 10]
        for rank in range(size):
            seen.extend(samples_at(rank_positions(step, 32, rank, size), 960, SEED)[1])
    assert sorted(seen) == list(range(960))


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="num_samples 0"):
        permuted(np.array([0]), 0, SEED, 0)
    with pytest.raises(ValueError, match="places 0 to 10: expected 0 to 9"):
        permuted(np.array([0, 10]), 10, SEED, 0)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        rank_positions(0, 8, 2, 2)
    with pytest.raises(ValueError, match="step -1"):
        rank_positions(-1, 8, 0, 2)


@pytest.mark.parametrize("seed", [0, -1, 2**64, 2**200])
def test_any_integer_is_a_seed(seed: int) -> None:
    assert sorted(permuted(np.arange(9), 9, seed, 0)) == list(range(9))


def test_a_batch_of_samples_costs_under_a_millisecond() -> None:
    positions, fastest = np.arange(128) + 10**9, math.inf
    for _ in range(50):
        start = time.perf_counter()
        samples_at(positions, 5_822_653, SEED)
        fastest = min(fastest, time.perf_counter() - start)
    assert fastest < 1e-3


def test_a_thousand_million_samples_need_no_permutation_in_memory() -> None:
    tracemalloc.start()
    order = ShuffledOrder(10**9, SEED)
    for step in (0, 10**5, 10**8):
        epochs, samples = order.samples_at(rank_positions(step, 4096, 3, 8))
        assert np.unique(samples).size == 512
        assert 0 <= samples.min() <= samples.max() < 10**9
        assert (epochs == step * 4096 // 10**9).all()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 200_000  # a permutation would take 4,000,000,000


def test_a_thousand_million_samples_are_spread_evenly_and_unrelated_to_their_neighbours() -> None:
    """Chi-square at under 4 standard deviations: over bins of the sample, of the step to the next one, and of pairs."""
    num_samples, taken = 10**9, 400_000
    row = permuted(np.arange(taken) + 123_456_789, num_samples, SEED, 5)
    assert np.unique(row).size == taken
    assert surprise(np.bincount(row * 1000 // num_samples, minlength=1000), 999) < 4
    assert surprise(np.bincount(row % 1009, minlength=1009), 1008) < 4
    distances = (row[1:] - row[:-1]) % num_samples
    assert surprise(np.bincount(distances * 1000 // num_samples, minlength=1000), 999) < 4
    tens = row * 10 // num_samples
    triples = np.bincount(tens[:-2] * 100 + tens[1:-1] * 10 + tens[2:], minlength=1000)
    assert surprise(triples, 999) < 4
    next_epoch = permuted(np.arange(taken) + 123_456_789, num_samples, SEED, 6)
    assert surprise(np.bincount(tens * 10 + next_epoch * 10 // num_samples, minlength=100), 99) < 4


def test_permutations_of_several_sizes_are_made_at_once() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 300, 2000)
    places, streams = rng.integers(0, sizes), rng.integers(0, 2**63, 2000).astype(np.uint64)
    together = permuted_each(places, sizes, streams)
    for number in range(0, 2000, 20):
        alone = permuted_each(places[[number]], int(sizes[number]), streams[[number]])
        assert together[[number]] == alone
    whole = permuted_each(np.r_[:7, :43], np.repeat([7, 43], [7, 43]), np.array([9], np.uint64))
    assert sorted(whole[:7]) == list(range(7))
    assert sorted(whole[7:]) == list(range(43))
    with pytest.raises(ValueError, match="places 0 to 43: expected 0 to 6"):
        permuted_each(np.arange(44), np.repeat([7, 43], [7, 37]), np.array([9], np.uint64))


def test_a_shuffled_order_is_the_stream_of_a_seed() -> None:
    order: SampleOrder = ShuffledOrder(10, SEED)
    for found, expected in zip(order.samples_at(np.arange(5, 25)), samples_at(np.arange(5, 25), 10, SEED), strict=True):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="num_samples 0"):
        ShuffledOrder(0, SEED)
