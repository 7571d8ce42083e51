"""The nearest identities, against a search that compares everything in plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from partial_fc.inference.model import Numbers, unit
from partial_fc.inference.nearest import Chosen, Integers, by_faiss, by_product, nearest_identities

IMAGES, DIMENSIONS, IDENTITIES, QUERIES = 700, 24, 90, 12
CHOOSERS = pytest.mark.parametrize("chosen", [by_product, by_faiss])


def unit_rows(seed: int, count: int) -> Numbers:
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32)
    return unit(rows)


@pytest.fixture(scope="module")
def rows() -> Numbers:
    """A third of them occur twice or more: ties, whose order is that of the rows."""
    found = unit_rows(0, IMAGES)
    found[IMAGES // 3 : 2 * IMAGES // 3] = found[: IMAGES // 3][::-1]
    found[-40:] = found[7]
    return found


@pytest.fixture(scope="module")
def labels() -> Integers:
    return np.random.default_rng(1).integers(0, IDENTITIES, IMAGES)


def brute_force(rows: Numbers, labels: Integers, query: Numbers, nearest: int) -> list[tuple[int, int]]:
    """Row and label of the best image of each of the nearest identities."""
    cosines = [float((row.astype(np.float64) * query).sum()) for row in rows]
    best = dict[int, int]()
    for row in sorted(range(len(rows)), key=lambda row: (-cosines[row], row)):
        best.setdefault(int(labels[row]), row)
    return [(row, label) for label, row in best.items()][:nearest]


def blocks(rows: Numbers, size: int) -> list[tuple[int, Numbers]]:
    return [(first, rows[first : first + size]) for first in range(0, len(rows), size)]


@CHOOSERS
@pytest.mark.parametrize("size", [1, 64, IMAGES])
@pytest.mark.parametrize("nearest", [1, 10, IDENTITIES + 5])
def test_the_nearest_are_those_of_a_comparison_with_everything(
    rows: Numbers, labels: Integers, chosen: Chosen, size: int, nearest: int
) -> None:
    queries = np.concatenate([rows[[7, 30]], unit_rows(2, QUERIES - 2)])
    found = nearest_identities(queries, blocks(rows, size), labels, nearest, chosen)
    for query, each in zip(queries, found, strict=True):
        expected = brute_force(rows, labels, query, nearest)
        assert list(zip(each.rows.tolist(), each.labels.tolist(), strict=True)) == expected


@CHOOSERS
def test_images_closer_than_a_product_can_tell_are_told_apart(chosen: Chosen) -> None:
    """Rows that differ in the last digits only, all of different identities: the order is that of float64."""
    query = unit_rows(3, 1)
    rows = np.repeat(query, 300, axis=0)
    rows[:, 0] = np.nextafter(rows[:, 0], np.float32(2) * np.random.default_rng(4).choice([-1, 1], 300).astype("f4"))
    labels = np.arange(300)
    (found,) = nearest_identities(query, blocks(rows, 50), labels, 20, chosen)
    assert list(zip(found.rows.tolist(), found.labels.tolist(), strict=True)) == brute_force(rows, labels, query[0], 20)


@CHOOSERS
def test_one_identity_with_almost_all_images_hides_no_other(chosen: Chosen) -> None:
    query = unit_rows(5, 1)
    rows = np.concatenate([np.repeat(query, 500, axis=0), unit_rows(6, 8)])
    labels = np.concatenate([np.zeros(500, np.int64), np.arange(1, 9)])
    (found,) = nearest_identities(query, [(0, rows)], labels, 5, chosen)
    assert list(zip(found.rows.tolist(), found.labels.tolist(), strict=True)) == brute_force(rows, labels, query[0], 5)


def test_what_cannot_be_searched_is_refused(rows: Numbers, labels: Integers) -> None:
    with pytest.raises(ValueError, match="expected 1 or more"):
        nearest_identities(rows[:1], blocks(rows, 64), labels, 0, by_product)
    with pytest.raises(ValueError, match="rows of 24 numbers cannot be compared with one of 23"):
        nearest_identities(rows[:1, :-1], blocks(rows, 64), labels, 1, by_product)
