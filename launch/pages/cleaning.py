"""What a network finds wrong with a set, as one HTML file with the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.checking.contact_sheet import side_by_side
from data_pipeline.source import Source
from launch.embedding.cleaning import Copy, OnePerson, WrongLabel
from launch.pages.strips import Section, write_strips

MOST_SHOWN = 50  # rows of a section
EXAMPLES = 4  # images of an identity
Strip = tuple[Image.Image, str]


class Shown(NamedTuple):
    """The set with the labels that were judged, the sample of each row, what labels are called, and who is trusted."""

    title: str
    source: Source
    samples: NDArray[np.int64]
    names: Mapping[int, str]
    trusted_N: NDArray[np.bool_]

    def images(self, label: int) -> list[tuple[Source, int]]:
        """Some images of an identity, none of those whose label is in doubt."""
        rows = np.flatnonzero((self.source.labels[self.samples] == label) & self.trusted_N)
        return [(self.source, sample) for sample in self.samples[rows[:EXAMPLES]].tolist()]

    def name(self, label: int) -> str:
        """What a label is called."""
        return f"{self.names[label]} (label {label})" if label in self.names else f"label {label}"


def write_cleaning(
    path: Path, shown: Shown, wrong: Sequence[WrongLabel], people: Sequence[OnePerson], copied: Sequence[Copy]
) -> None:
    """Write the page: the clearest of each kind, a row of pictures each."""
    tiles = [
        ("Images", f"{len(shown.source):,}", f"{shown.source.num_classes:,} identities"),
        ("Wrong labels", f"{len(wrong):,}", "likely"),
        ("Pairs that are one", f"{len(people):,}", "likely"),
        ("Pictures of a test set", f"{len(copied):,}", ""),
    ]
    sections = [
        Section("Likely wrong labels", _lead(wrong, _WRONG), [_wrong(shown, each) for each in wrong[:MOST_SHOWN]]),
        Section(
            "Identities that are one", _lead(people, _PEOPLE), [_people(shown, each) for each in people[:MOST_SHOWN]]
        ),
        Section("Pictures of a test set", _lead(copied, _COPIES), [_copy(shown, each) for each in copied[:MOST_SHOWN]]),
    ]
    write_strips(path, f"What is wrong with {shown.title}", tiles, sections)


_WRONG = "the image, some of the identity that it is called, some of the one that it is nearer to"
_PEOPLE = "some images of either identity"
_COPIES = "the image of the training set, that of the test set"


def _lead(found: Sequence[object], row: str) -> str:
    if not found:
        return "None was found."
    kept = f"The first {MOST_SHOWN} of {len(found):,}." if len(found) > MOST_SHOWN else f"All {len(found):,}."
    return f"{kept} A row: {row}."


def _wrong(shown: Shown, each: WrongLabel) -> Strip:
    sample = int(shown.samples[each.row])
    called, nearer = f"{shown.name(each.label)}, {each.own:.2f}", f"{shown.name(each.nearest)}, {each.other:.2f}"
    images = [(shown.source, sample), *shown.images(each.label), *shown.images(each.nearest)]
    return side_by_side(images), f"{shown.source.name(sample)}: called {called}; nearer to {nearer}"


def _people(shown: Shown, each: OnePerson) -> Strip:
    images = [*shown.images(each.first), *shown.images(each.second)]
    return side_by_side(images), f"{shown.name(each.first)} and {shown.name(each.second)}: {each.cosine:.3f}"


def _copy(shown: Shown, each: Copy) -> Strip:
    names = f"{shown.source.name(each.sample)} is {each.test.name(each.test_sample)}"
    return side_by_side([(shown.source, each.sample), (each.test, each.test_sample)]), names
