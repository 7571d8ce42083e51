"""Random bits as a pure function of numbers: the same for every rank, machine, epoch order and resumption.

SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) addressed by a counter in place of a state.
"""

import numpy as np
from numpy.typing import NDArray

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
WORD = 2**64 - 1


def key(*words: int) -> int:
    """A 64-bit key of some integers of any sign, one stream of bits each; the order of the integers counts."""
    state = 0
    for word in words:
        state = int(bits(state, np.array([word & WORD], np.uint64))[0])
    return state


def bits(stream: int | NDArray[np.uint64], counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 bits for each counter of a stream; arithmetic modulo 2**64."""
    z = counters * np.uint64(GOLDEN_GAMMA)
    z += stream if isinstance(stream, np.ndarray) else np.uint64(stream)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def fractions(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers in [0, 1), multiples of 2**-53, from the upper bits of words."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
