import pickle

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.sets.noisy import NoisyLabels
from data_pipeline.source import Source

NUM_CLASSES, IMAGES_EACH = 11, 2000


class Bytes(Source):
    """Images that are their own number, in classes of IMAGES_EACH."""

    def __init__(self) -> None:
        self.labels = np.arange(NUM_CLASSES * IMAGES_EACH, dtype=np.int64) // IMAGES_EACH

    def read(self, sample: int) -> NDArray[np.uint8]:
        return np.frombuffer(str(sample).encode(), np.uint8)


class NamedBytes(Bytes):
    def name(self, sample: int) -> str:
        return f"drawer {sample}"


@pytest.mark.parametrize("share", [0.2, 0.4, 1.0])
def test_the_share_of_wrong_labels_is_the_one_asked_for(share: float) -> None:
    clean = Bytes()
    wrong = np.mean(NoisyLabels(clean, share, seed=5).labels != clean.labels)
    deviation = np.sqrt(share * (1 - share) / len(clean))
    assert abs(wrong - share) <= 4 * deviation


def test_every_other_class_is_drawn_equally_often_for_every_class() -> None:
    clean = Bytes()
    noisy = NoisyLabels(clean, 1.0, seed=5).labels
    for label in range(NUM_CLASSES):
        counts = np.bincount(noisy[clean.labels == label], minlength=NUM_CLASSES)
        expected = IMAGES_EACH / (NUM_CLASSES - 1)
        assert counts[label] == 0
        assert abs(np.delete(counts, label) - expected).max() < 5 * np.sqrt(expected)


def test_no_noise_leaves_every_label_and_all_noise_leaves_none() -> None:
    clean = Bytes()
    np.testing.assert_array_equal(NoisyLabels(clean, 0.0, seed=1).labels, clean.labels)
    assert (NoisyLabels(clean, 1.0, seed=1).labels != clean.labels).all()


def test_more_noise_keeps_the_wrong_labels_of_less() -> None:
    clean = Bytes()
    less, more = (NoisyLabels(clean, share, seed=9).labels for share in (0.2, 0.4))
    hit = less != clean.labels
    np.testing.assert_array_equal(more[hit], less[hit])


def test_a_seed_decides_which_labels_are_wrong() -> None:
    first, again, other = (NoisyLabels(Bytes(), 0.3, seed).labels for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.3


def test_whether_an_image_is_hit_tells_nothing_about_its_new_class() -> None:
    clean = Bytes()
    few = NoisyLabels(clean, 0.05, seed=3).labels
    shifts = ((few - clean.labels) % NUM_CLASSES)[few != clean.labels]
    counts = np.bincount(shifts, minlength=NUM_CLASSES)[1:]
    expected = shifts.size / (NUM_CLASSES - 1)
    assert abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_images_number_and_classes_are_those_of_the_source() -> None:
    noisy = NoisyLabels(Bytes(), 1.0, seed=0)
    assert isinstance(noisy.labels, np.ndarray)
    assert (len(noisy), noisy.num_classes) == (NUM_CLASSES * IMAGES_EACH, NUM_CLASSES)
    assert noisy.labels.dtype == np.int64
    assert noisy.read(17).tobytes() == b"17"
    assert noisy.label(17) == noisy.labels[17]


def test_the_place_of_an_image_is_passed_on_where_the_source_knows_it() -> None:
    named: Source = NoisyLabels(NamedBytes(), 0.5, seed=0)
    assert named.name(4) == "drawer 4"
    assert NoisyLabels(Bytes(), 0.5, seed=0).name(4) == "sample 4"


def test_a_pickled_source_has_the_same_wrong_labels() -> None:
    noisy = NoisyLabels(Bytes(), 0.5, seed=0)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(noisy)).labels, noisy.labels)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="expected 0 to 1"):
        NoisyLabels(Bytes(), share, seed=0)


def test_one_class_alone_is_refused() -> None:
    lonely = Bytes()
    lonely.num_classes = 1
    with pytest.raises(ValueError, match="no other class"):
        NoisyLabels(lonely, 0.5, seed=0)
