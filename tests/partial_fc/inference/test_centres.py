"""Centres of identities, against plain loops in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from partial_fc.inference import centres
from partial_fc.inference.centres import halves_cosines, judged, near_images, near_pairs, sums_of
from partial_fc.inference.model import Numbers, unit

IMAGES, IDENTITIES, DIMENSIONS = 150, 23, 12


@pytest.fixture(autouse=True, params=[(7, 5), (1000, 1000)])
def stretches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and classes are compared a few at a time, and all at once."""
    monkeypatch.setattr(centres, "_ROWS", request.param[0])
    monkeypatch.setattr(centres, "_CLASSES", request.param[1])


@pytest.fixture(scope="module")
def rows() -> Numbers:
    return unit(np.random.default_rng(0).standard_normal((IMAGES, DIMENSIONS)).astype(np.float32))


@pytest.fixture(scope="module")
def labels() -> torch.Tensor:
    """Identity 22 has one image, 21 two, 20 none."""
    found = torch.from_numpy(np.random.default_rng(1).integers(0, 20, IMAGES))
    found[:3] = torch.tensor([22, 21, 21])
    return found


def blocks(rows: Numbers) -> Iterator[tuple[int, Numbers]]:
    yield from ((first, rows[first : first + 40]) for first in range(0, len(rows), 40))


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / max(np.linalg.norm(first) * np.linalg.norm(second), 1e-12))


def sum_of(rows: Numbers, chosen: np.ndarray) -> np.ndarray:
    total: np.ndarray = rows.astype(np.float64)[chosen].sum(0)
    return total


def test_an_image_is_judged_by_the_others_of_its_identity_and_by_the_nearest_other(
    rows: Numbers, labels: torch.Tensor
) -> None:
    sums = sums_of(lambda: blocks(rows), labels, IDENTITIES)
    found, known = judged(lambda: blocks(rows), labels, sums), labels.numpy()
    everyone = [sum_of(rows, known == label) for label in range(IDENTITIES)]
    for row, label in enumerate(known.tolist()):
        rest = (known == label) & (np.arange(IMAGES) != row)
        if rest.sum() < 2:
            assert torch.isnan(found.own_N[row]), "of one or two images none is known to be the wrong one"
        else:
            assert float(found.own_N[row]) == pytest.approx(cosine(rows[row], sum_of(rows, rest)), abs=1e-5)
        others = [-2 if other == label else cosine(rows[row], total) for other, total in enumerate(everyone)]
        assert int(found.nearest_N[row]) == int(np.argmax(others))
        assert float(found.other_N[row]) == pytest.approx(max(others), abs=1e-5)


def test_halves_are_of_the_counted_images_in_turns(rows: Numbers, labels: torch.Tensor) -> None:
    counted = torch.from_numpy(np.random.default_rng(2).random(IMAGES) < 0.8)
    found, expected = halves_cosines(lambda: blocks(rows), labels, IDENTITIES, counted), []
    for label in range(IDENTITIES):
        own = np.flatnonzero((labels == label).numpy() & counted.numpy())
        if len(own) >= 4:
            expected.append(cosine(sum_of(rows, own[::2]), sum_of(rows, own[1::2])))
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_near_pairs_come_nearest_first_each_once(rows: Numbers, labels: torch.Tensor) -> None:
    sums = sums_of(lambda: blocks(rows), labels, IDENTITIES)
    pairs, cosines = near_pairs(sums, 0.3)
    known = {
        (a, b): cosine(sums[a].double().numpy(), sums[b].double().numpy())
        for a in range(IDENTITIES)
        for b in range(a + 1, IDENTITIES)
    }
    expected = sorted((pair for pair, value in known.items() if value >= 0.3), key=lambda pair: -known[pair])
    assert len(expected) > 3
    assert [tuple(pair) for pair in pairs.tolist()] == expected
    assert cosines.tolist() == pytest.approx([known[pair] for pair in expected], abs=1e-5)


def test_near_images_are_all_pairs_of_both_sets(rows: Numbers) -> None:
    others = torch.from_numpy(np.concatenate([rows[[3, 140]], -rows[:9]]))
    found = set(near_images(lambda: blocks(rows), others, 0.6))
    everything = rows.astype(np.float64) @ others.double().numpy().T
    assert found == set(zip(*(each.tolist() for each in np.nonzero(everything >= 0.6)), strict=True))
    assert {(3, 0), (140, 1)} <= found
