"""A run whose number of ranks changes in the middle of an epoch, through the real loader."""

import io
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from data_pipeline.augment.augmentation import Augmentation
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.loader.image_loader import Batch, ImageFormat, ImageLoader
from data_pipeline.synthetic.people import identity_image

PEOPLE, IMAGES_EACH, SIDE = 12, 5, 32
GLOBAL_BATCH, STEPS_PER_EPOCH = 10, 6
EVERY_CHANGE = Augmentation(
    crop=0.4,
    mirror=0.5,
    warp=0.6,
    rotate_degrees=20,
    scale=0.2,
    shear=0.1,
    translate=0.1,
    colour=0.5,
    grey=0.3,
    blur=0.4,
    low_resolution=0.4,
    jpeg=0.4,
    erase=0.4,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> RecordSource:
    """Faces in JPEG; every image has a label of its own, which tells in a batch which one it is."""
    path = tmp_path_factory.mktemp("records") / "train.rec"
    with RecordWriter(path) as writer:
        for number in range(PEOPLE * IMAGES_EACH):
            file = io.BytesIO()
            picture = identity_image(number // IMAGES_EACH, number % IMAGES_EACH, size=SIDE)
            Image.fromarray(picture).save(file, "JPEG", quality=95)
            writer.append(number, file.getvalue())
    return RecordSource(path)


def global_batches(source: RecordSource, size: int, start_step: int, count: int) -> list[Batch]:
    """What the ranks of a run of `size` see in some steps, put together in the order of the ranks."""
    ranks = [
        ImageLoader(
            source,
            ImageFormat(SIDE, SIDE),
            global_batch=GLOBAL_BATCH,
            rank=rank,
            size=size,
            seed=7,
            augmentation=EVERY_CHANGE,
            start_step=start_step,
        )
        for rank in range(size)
    ]
    whole = []
    for parts in islice(zip(*ranks, strict=True), count):
        assert max(len(part.labels) for part in parts) - min(len(part.labels) for part in parts) <= 1
        whole.append(Batch(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])))
    return whole


@pytest.fixture(scope="module")
def steady(source: RecordSource) -> list[Batch]:
    """Two epochs and a third begun, on one rank throughout."""
    return global_batches(source, 1, 0, 2 * STEPS_PER_EPOCH + 2)


def test_changing_the_number_of_ranks_changes_no_tensor_and_no_sample(
    source: RecordSource, steady: list[Batch]
) -> None:
    """2, 3, then 4 ranks: the changes fall in the middle of the first and of the second epoch."""
    parts, stops = [], (0, 4, 9, len(steady))
    for size, start, stop in zip((2, 3, 4), stops[:-1], stops[1:], strict=True):
        parts += global_batches(source, size, start, stop - start)
    for changing, constant in zip(parts, steady, strict=True):
        assert torch.equal(changing.labels, constant.labels)
        assert torch.equal(changing.images, constant.images)
    seen = torch.cat([batch.labels for batch in parts]).numpy()
    for epoch in range(2):
        of_epoch = seen[epoch * len(source) : (epoch + 1) * len(source)]
        np.testing.assert_array_equal(np.sort(of_epoch), np.arange(len(source)))


def test_an_image_is_changed_anew_in_every_epoch(steady: list[Batch]) -> None:
    """The test above would hold as well if nothing were drawn at all."""
    first, second = (
        {int(label): image for batch in epoch for label, image in zip(batch.labels, batch.images, strict=True)}
        for epoch in (steady[:STEPS_PER_EPOCH], steady[STEPS_PER_EPOCH : 2 * STEPS_PER_EPOCH])
    )
    assert first.keys() == second.keys()
    assert sum(torch.equal(first[label], second[label]) for label in first) <= 3
