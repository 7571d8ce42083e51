"""Global batches of k identities with m images of each, from arithmetic as in `shuffled`: the cursor is one integer.

    position p -> visit p // m, image p % m of it
    visit v    -> round v // C, place v % C of that round's permutation of the C identities

Each round visits every identity once, so each identity is equally frequent, however many images it has. An identity's
images go through permutations of its own, m at each visit, so that none is left out either.
"""

import numpy as np
from numpy.typing import NDArray

from data_pipeline.hashing import bits, key
from data_pipeline.order.shuffled import permuted_each

IDENTITY_STREAM, IMAGE_STREAM = 5, 6  # apart from every other use of the same seed


class BalancedOrder:
    """A `SampleOrder` in which every global batch has `images_each` images of each of its identities, all different.

    A batch that ends one round and begins the next has different identities too: what the round before ended with
    comes a little later. ValueError where there are too few identities for that.
    An identity with n images shows all of them in ceil(n / m) visits, up to m - 1 of them twice; one with fewer than m
    shows them again within a visit, changed by other draws (`sets.selected` leaves such identities out).
    Holds 16 bytes an identity, and 4 an image unless the images come grouped by identity, as in most `.rec` files.
    Identities without images are passed over.
    """

    def __init__(self, labels: NDArray[np.int64], *, global_batch: int, images_each: int, seed: int) -> None:
        if not 1 <= images_each <= global_batch or global_batch % images_each:
            raise ValueError(
                f"a global batch of {global_batch} images, {images_each} of each identity: expected a multiple"
            )
        self.images_each, self.identities_per_batch = images_each, global_batch // images_each
        counts = np.bincount(labels)
        self._sizes = counts[counts > 0]
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._members = _grouped(labels)
        self._identity_key, self._image_key = key(IDENTITY_STREAM, seed), key(IMAGE_STREAM, seed)
        found, wanted = self._sizes.size, self.identities_per_batch
        if found < 2 * wanted and (found < wanted or found % wanted):
            raise ValueError(
                f"{found} identities for batches of {wanted} different ones: expected at least {2 * wanted}; choose "
                "smaller batches, or more images of each identity"
            )

    def samples_at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Samples at some positions, and numbers that stand for their epochs: no pair of the two comes twice."""
        visits, images = np.divmod(np.asarray(positions, np.int64), self.images_each)
        rounds, identities = self._visited(visits)
        sizes = self._sizes[identities]
        passes, visit_of_pass = np.divmod(rounds, -(-sizes // self.images_each))
        streams = bits(bits(self._image_key, identities.astype(np.uint64)), passes.astype(np.uint64))
        laps, places = np.divmod(visit_of_pass * self.images_each + images, sizes)
        members = self._starts[identities] + permuted_each(places, sizes, streams)
        epochs = rounds * self.images_each + laps  # fewer laps in a visit than images
        return epochs, members if self._members is None else self._members[members].astype(np.int64)

    def _visited(self, visits: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rounds and identities of some visits."""
        rounds, places = np.divmod(visits, self._sizes.size)
        identities = self._drawn(rounds, places)
        if self._sizes.size % self.identities_per_batch:  # else no batch has identities of two rounds
            early = np.flatnonzero(places < self.identities_per_batch)
            early = early[np.argsort(rounds[early], kind="stable")]
            numbers, firsts = np.unique(rounds[early], return_index=True)
            for number, chosen in zip(numbers.tolist(), np.split(early, firsts[1:]), strict=False):
                identities[chosen] = self._beginning(number)[places[chosen]]
        return rounds, identities

    def _beginning(self, number: int) -> NDArray[np.int64]:
        """The first batch's worth of identities of a round, those at the back that its first, shared batch has already.

        Where a visits of that batch belong to the round before, it takes k - a of this one, and at least as many of its
        first k places are fit for that. No place that ends a round is among them: there are 2 k identities or more.
        """
        wanted = self.identities_per_batch
        first = self._drawn(np.full(wanted, number), np.arange(wanted))
        shared = number * self._sizes.size % wanted
        if not shared:
            return first
        before = self._drawn(np.full(shared, number - 1), np.arange(self._sizes.size - shared, self._sizes.size))
        is_taken = np.isin(first, before)
        return np.concatenate([first[~is_taken], first[is_taken]])

    def _drawn(self, rounds: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
        return permuted_each(places, self._sizes.size, bits(self._identity_key, rounds.astype(np.uint64)))


def _grouped(labels: NDArray[np.int64]) -> NDArray[np.uint32] | NDArray[np.int64] | None:
    """The samples, label after label; None where that is the order they have."""
    if bool((labels[:-1] <= labels[1:]).all()):
        return None
    order = np.argsort(labels, kind="stable")
    return order.astype(np.uint32) if order.size <= 2**32 else order
