"""The order of samples, from arithmetic: no permutation is held, none is shuffled, the cursor is one integer.

All ranks walk one endless stream of positions, the concatenation of epochs, each a permutation of its own:

    position p -> epoch p // num_samples, place p % num_samples -> sample = permuted(place)

A step takes `global_batch` positions whatever the number of ranks, so a run may go on with another number of them and
see the same global batches; and no rank runs out of data before another.

The permutation is a Feistel network over pairs (i, j) in [0, rows) x [0, columns), rows * columns >= num_samples (Black
and Rogaway, Ciphers with Arbitrary Finite Domains, 2002): each round adds to one half a hash of the other. Pairs that
fall outside num_samples go round again until they fall inside, which keeps it a bijection.
"""

import math

import numpy as np
from numpy.typing import NDArray

from data_pipeline.counter_hash import bits, key

ORDER_STREAM = 1  # apart from every other use of the same seed
MOST_SAMPLES = 2**40


def permuted(
    places: NDArray[np.int64], num_samples: int, seed: int, epoch: int | NDArray[np.int64]
) -> NDArray[np.int64]:
    """The samples at some places of an epoch's permutation; `epoch` is one for all or one per place."""
    if not 1 <= num_samples <= MOST_SAMPLES:
        raise ValueError(f"num_samples {num_samples}: expected 1 to 2**40")
    places, epochs = np.broadcast_arrays(np.asarray(places, np.int64), np.asarray(epoch, np.int64))
    if places.size and not 0 <= places.min() <= places.max() < num_samples:
        raise ValueError(f"places {places.min()} to {places.max()}: expected 0 to {num_samples - 1}")
    streams = bits(key(ORDER_STREAM, seed), epochs.astype(np.uint64))
    samples = _passed(places.astype(np.uint64), num_samples, streams)
    while (outside := samples >= num_samples).any():
        samples[outside] = _passed(samples[outside], num_samples, streams[outside])
    return samples.astype(np.int64)


def samples_at(
    positions: NDArray[np.int64], num_samples: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Epochs and samples at some positions of the endless stream."""
    epochs, places = np.divmod(np.asarray(positions, np.int64), num_samples)
    return epochs, permuted(places, num_samples, seed, epochs)


def rank_positions(step: int, global_batch: int, rank: int, size: int) -> NDArray[np.int64]:
    """The positions of one rank in global batch `step`: a contiguous part, the first `global_batch % size` ranks
    having one more than the others."""
    if not 0 <= rank < size:
        raise ValueError(f"rank {rank} of {size}: expected 0 to {size - 1}")
    if step < 0 or global_batch < 1:
        raise ValueError(f"step {step}, global batch {global_batch}: expected step >= 0 and at least one sample")
    share, longer = divmod(global_batch, size)
    start = step * global_batch + rank * share + min(rank, longer)
    return np.arange(start, start + share + (rank < longer), dtype=np.int64)


def _passed(numbers: NDArray[np.uint64], num_samples: int, streams: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One pass through the network: a bijection of [0, rows * columns), for each stream its own."""
    rows = math.isqrt(num_samples - 1) + 1
    rows += rows % 2  # cyclic shifts of an odd number of rows are even permutations: odd ones would be rare
    columns = -(-num_samples // rows)
    sides = np.uint64(rows), np.uint64(columns)
    halves = [numbers // sides[1], numbers % sides[1]]
    rounds = _rounds(num_samples)
    for turn in range(rounds):
        here, there = turn % 2, 1 - turn % 2
        counters = halves[there] * np.uint64(rounds) + np.uint64(turn)
        halves[here] = (halves[here] + bits(streams, counters) % sides[here]) % sides[here]
    return halves[0] * sides[1] + halves[1]


def _rounds(num_samples: int) -> int:
    """Enough for the permutations of as few as 4 samples to be equally frequent: halves of 2 or 3 values mix slowly."""
    return 8 + 96 // num_samples
