"""Identities that are one person under two names, as one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.sets.identities import label_names
from data_pipeline.sets.identity_keys import identity_keys
from data_pipeline.sets.merged import MergedSource
from data_pipeline.sets.selected import numbered_without_gaps
from data_pipeline.source import Source


class Named(Source):
    def __init__(self) -> None:
        self.labels, self.identities = np.array([0, 1, 2, 3, 4, 2, 5, 1]), list("abcdef")

    def read(self, sample: int) -> NDArray[np.uint8]:
        return np.full(4, sample, np.uint8)

    def name(self, sample: int) -> str:
        return f"image {sample}"


def test_a_chain_of_pairs_is_one_identity_with_the_smallest_label() -> None:
    merged = MergedSource(Named(), [(4, 2), (5, 4), (3, 1)])
    assert merged.labels.tolist() == [0, 1, 2, 1, 2, 2, 2, 1]
    assert (merged.num_classes, len(merged), merged.name(6)) == (6, 8, "image 6")
    assert (merged.read(6) == 6).all()
    assert MergedSource(Named(), []).labels.tolist() == Named().labels.tolist()


def test_the_others_are_numbered_anew_and_keep_their_names_and_keys() -> None:
    source = numbered_without_gaps(MergedSource(Named(), [(0, 3), (2, 4)]))
    assert source.labels.tolist() == [0, 1, 2, 0, 2, 2, 3, 1]
    assert label_names(source) == {0: "a", 1: "b", 2: "c", 3: "f"}
    keys = identity_keys(Named())
    assert identity_keys(source).tolist() == keys[[0, 1, 2, 5]].tolist(), "a class row finds its person again"


def test_a_label_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="label 9 is to be merged, but no image of the set has it"):
        MergedSource(Named(), [(9, 1)])
