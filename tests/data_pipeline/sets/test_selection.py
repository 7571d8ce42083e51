import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.order.balanced import BalancedOrder
from data_pipeline.sets.identities import label_names
from data_pipeline.sets.joined import JoinedSource
from data_pipeline.sets.noisy import NoisyLabels
from data_pipeline.sets.selected import SelectedSource, gaps_in_words, numbered_without_gaps
from data_pipeline.source import Source

LABELS = [4, 4, 0, 2, 4, 2, 9, 9, 9, 0, 7]  # 4 and 9 have three images, 0 and 2 two, 7 one; 1, 3, 5, 6, 8 none


class Numbered(Source):
    """Images that are their own number."""

    def __init__(self, labels: list[int] | NDArray[np.int64]) -> None:
        self.labels = np.asarray(labels, np.int64)

    def read(self, sample: int) -> NDArray[np.uint8]:
        return np.frombuffer(str(sample).encode(), np.uint8)


class Named(Numbered):
    identities = ("zebra", "yak", "xerus", "whale", "vole", "urial", "tapir", "seal", "rabbit", "quail")

    def name(self, sample: int) -> str:
        return f"drawer {sample}"


class Prefetching(Numbered):
    def __init__(self, labels: list[int]) -> None:
        super().__init__(labels)
        self.asked: list[int] = []

    def prefetch(self, samples: NDArray[np.int64]) -> None:
        self.asked += samples.tolist()


def contents(source: Source) -> list[tuple[int, int]]:
    """The number and the label of every image."""
    return [(int(source.read(sample).tobytes()), source.label(sample)) for sample in range(len(source))]


@pytest.mark.parametrize(
    ("least", "kept", "original"),
    [
        (1, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [0, 2, 4, 7, 9]),
        (2, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 2, 4, 9]),
        (3, [0, 1, 4, 6, 7, 8], [4, 9]),
    ],
)
def test_identities_with_enough_images_stay_and_are_numbered_anew(
    least: int, kept: list[int], original: list[int]
) -> None:
    selected = SelectedSource(Numbered(LABELS), least_images=least)
    assert contents(selected) == [(sample, original.index(LABELS[sample])) for sample in kept]
    assert selected.labels.dtype == np.int64
    assert selected.labels.tolist() == [label for _, label in contents(selected)]
    assert selected.num_classes == len(original)
    assert selected.original_labels.tolist() == original
    assert [selected.original_sample(sample) for sample in range(len(selected))] == kept


def test_the_new_labels_leave_no_gap() -> None:
    labels = np.random.default_rng(0).zipf(1.5, 5000) % 1000
    selected = SelectedSource(Numbered(labels), least_images=4)
    counts = np.bincount(selected.labels, minlength=selected.num_classes)
    assert counts.min() >= 4
    kept = np.bincount(labels) >= 4
    assert counts.size == kept.sum()
    assert len(selected) == np.bincount(labels)[kept].sum()
    np.testing.assert_array_equal(counts, np.bincount(labels)[selected.original_labels])


def test_images_left_out_may_take_their_identity_with_them() -> None:
    selected = SelectedSource(Numbered(LABELS), left_out=[0, 3, 5, 10])  # both images of 2 and the one of 7
    assert [image for image, _ in contents(selected)] == [1, 2, 4, 6, 7, 8, 9]
    assert selected.original_labels.tolist() == [0, 4, 9]
    assert label_names(selected) == {0: "0", 1: "4", 2: "9"}
    assert label_names(SelectedSource(Named(LABELS), least_images=3)) == {0: "vole", 1: "quail"}


def test_labels_that_are_ids_are_numbered_by_sorting() -> None:
    ids = Numbered([900_000_014, 900_000_000, 2**62, 900_000_000])
    tracemalloc.start()
    numbered = numbered_without_gaps(ids)
    said = gaps_in_words(ids)
    least = SelectedSource(ids, least_images=2)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    assert numbered.labels.tolist() == [1, 0, 2, 0]
    assert numbered.num_classes == 3
    assert contents(least) == [(1, 0), (3, 0)]
    assert said == (
        "4,611,686,018,427,387,902 of the labels 0 to 4,611,686,018,427,387,904 have no image (the first: 0, 1, 2, 3, "
        "4); the largest is that of sample 2"
    )


def test_labels_without_gaps_stay_as_they_are() -> None:
    source = Numbered([2, 0, 1, 1])
    assert numbered_without_gaps(source) is source
    assert gaps_in_words(source) is None


def test_names_are_those_of_the_source() -> None:
    selected = SelectedSource(Named(LABELS), least_images=3)
    assert [selected.name(sample) for sample in range(3)] == ["drawer 0", "drawer 1", "drawer 4"]
    assert selected.identities == ["vole", "quail"]
    nameless = SelectedSource(Numbered(LABELS), least_images=3)
    assert nameless.name(2) == "sample 4"
    assert nameless.identities is None


def test_numbers_of_the_source_are_found_again() -> None:
    selected = SelectedSource(Numbered(LABELS), least_images=3)  # 0, 1, 4, 6, 7, 8
    assert selected.samples_of(np.array([0, 2, 4, 5, 8, 9, 10])).tolist() == [0, 2, 5]
    assert selected.samples_of(np.array([], np.int64)).tolist() == []


def test_what_will_be_read_is_passed_on() -> None:
    source = Prefetching(LABELS)
    selected = SelectedSource(source, least_images=3)
    selected.prefetch(np.array([5, 0, 2]))
    assert source.asked == [8, 0, 4]
    SelectedSource(Numbered(LABELS), least_images=3).prefetch(np.array([0]))


def test_selected_sets_are_merged_by_their_names() -> None:
    sets = [SelectedSource(Named(LABELS), least_images=3), SelectedSource(Named([2, 2, 4, 1, 4]), least_images=2)]
    merged = JoinedSource(sets, "merge")  # quail, vole, xerus
    assert merged.labels.tolist() == [1, 1, 1, 0, 0, 0, 2, 2, 1, 1]


def test_wrappers_go_around_it() -> None:
    selected = SelectedSource(Named(LABELS), least_images=2)
    noisy = NoisyLabels(selected, 1.0, seed=3)
    assert (noisy.labels != selected.labels).all()
    assert set(noisy.labels.tolist()) <= set(range(selected.num_classes))
    samples = BalancedOrder(selected.labels, global_batch=4, images_each=2, seed=1).samples_at(np.arange(400))[1]
    assert set(samples.tolist()) == set(range(len(selected)))


def test_a_selection_of_records_survives_pickling(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "train.rec") as writer:
        for number, label in enumerate(sorted(LABELS)):
            writer.append(label, b"%d" % number)
    selected = SelectedSource(RecordSource(tmp_path / "train.rec"), least_images=2)
    copy = pickle.loads(pickle.dumps(selected))
    assert contents(copy) == contents(selected) != []
    assert copy.name(9) == f"{tmp_path}/train.rec key 11"


def test_an_image_costs_twelve_bytes() -> None:
    source = Numbered(np.arange(300_000) // 3)
    tracemalloc.start()
    selected = SelectedSource(source, least_images=2)
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held_bytes < 12 * len(selected) + 8 * selected.num_classes + 20_000


@pytest.mark.parametrize(
    ("least", "message"),
    [
        (0, "at least 0 images of each identity: expected 1 or more"),
        (4, "no identity has 4 images, the most that one has is 3"),
    ],
)
def test_a_selection_of_nothing_is_refused(least: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelectedSource(Numbered(LABELS), least_images=least)


@pytest.mark.parametrize("sample", [-1, 6])
def test_numbers_outside_the_set_are_refused(sample: int) -> None:
    selected = SelectedSource(Numbered(LABELS), least_images=3)
    for call in (selected.read, selected.name, selected.original_sample):
        with pytest.raises(IndexError, match=f"sample {sample} of 6"):
            call(sample)
