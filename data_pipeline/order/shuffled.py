"""The order of samples, from arithmetic: no permutation is held, none is shuffled, the cursor is one integer.

All ranks walk one endless stream of positions, the concatenation of epochs, each a permutation of its own:

    position p -> epoch p // num_samples, place p % num_samples -> sample = permuted(place)

A step takes `global_batch` positions whatever the number of ranks, so a run may go on with another number of them and
see the same global batches; and no rank runs out of data before another.

The permutation is a Feistel network over pairs (i, j) in [0, rows) x [0, columns), rows * columns >= num_samples (Black
and Rogaway, Ciphers with Arbitrary Finite Domains, 2002): each round adds to one half a hash of the other. Pairs that
fall outside num_samples go round again until they fall inside, which keeps it a bijection.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_pipeline.hashing import bits, key

ORDER_STREAM = 1  # apart from every other use of the same seed
MOST_SAMPLES = 2**40


class SampleOrder(Protocol):
    """Which sample stands at which position of the endless stream of all ranks; it holds no place in that stream."""

    def samples_at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Epochs and samples at some positions, both of their shape (n,); no pair of them comes twice in the stream.

        What changes an image is drawn from that pair (`augment.draws.Draws`).
        """


@dataclass(frozen=True)
class ShuffledOrder:
    """Every sample once in each epoch, each epoch in an order of its own."""

    num_samples: int
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.num_samples <= MOST_SAMPLES:
            raise ValueError(f"num_samples {self.num_samples}: expected 1 to 2**40")

    def samples_at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Epochs and samples; the epoch is that of the whole set."""
        return samples_at(positions, self.num_samples, self.seed)


def permuted(
    places: NDArray[np.int64], num_samples: int, seed: int, epoch: int | NDArray[np.int64]
) -> NDArray[np.int64]:
    """The samples at some places of an epoch's permutation; `epoch` is one for all or one per place."""
    streams = bits(key(ORDER_STREAM, seed), np.atleast_1d(np.asarray(epoch, np.int64)).astype(np.uint64))
    return permuted_each(places, num_samples, streams)


def permuted_each(
    places: NDArray[np.int64], num_samples: int | NDArray[np.int64], streams: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """The samples at some places of permutations that may differ from place to place, in size and in stream of bits.

    Two places share a permutation where they share both. A permutation of 2 to 9 samples costs several times one of
    many (`_rounds`).
    """
    sizes = np.asarray(num_samples, np.int64)
    places, streams, _ = np.broadcast_arrays(np.asarray(places, np.int64), streams, sizes)
    if sizes.size and not 1 <= sizes.min() <= sizes.max() <= MOST_SAMPLES:
        raise ValueError(f"num_samples {num_samples}: expected 1 to 2**40")
    if places.size and not (places.min() >= 0 and (places < sizes).all()):
        raise ValueError(f"places {places.min()} to {places.max()}: expected 0 to {sizes.min() - 1}")
    modulus = sizes.astype(np.uint64)  # not broadcast: numpy divides by one number faster than by many equal ones
    samples = np.asarray(_passed(places.astype(np.uint64), modulus, streams))
    modulus_at = np.broadcast_to(modulus, samples.shape)
    while (outside := samples >= modulus).any():
        samples[outside] = _passed(samples[outside], modulus_at[outside], streams[outside])
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


def _passed(numbers: NDArray[np.uint64], sizes: NDArray[np.uint64], streams: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One pass through the network: a bijection of [0, rows * columns), for each size and stream its own."""
    rows = np.sqrt(sizes - np.uint64(1)).astype(np.uint64) + np.uint64(1)  # exact: sizes are far below 2**52
    rows = rows + rows % np.uint64(2)  # shifting an odd number of rows is an even permutation: odd ones would be rare
    columns = (sizes + rows - np.uint64(1)) // rows
    sides = rows, columns
    halves = [numbers // columns, numbers % columns]
    rounds = _rounds(sizes)
    fewest, most = (int(rounds.min()), int(rounds.max())) if rounds.size else (0, 0)
    for turn in range(most):
        here, there = turn % 2, 1 - turn % 2
        counters = halves[there] * rounds + np.uint64(turn)
        moved = (halves[here] + bits(streams, counters) % sides[here]) % sides[here]
        halves[here] = moved if turn < fewest else np.where(turn < rounds, moved, halves[here])
    passed: NDArray[np.uint64] = halves[0] * columns + halves[1]
    return passed


def _rounds(sizes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Enough for the permutations of as few as 4 samples to be equally frequent: halves of 2 or 3 values mix slowly."""
    rounds: NDArray[np.uint64] = np.uint64(8) + np.uint64(96) // sizes
    return rounds
