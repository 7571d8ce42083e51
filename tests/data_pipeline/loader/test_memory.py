"""Host memory over epochs: what a loader holds after the first one is all that it will ever hold."""

import gc
import io
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.augment.augmentation import Augmentation
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.loader.image_loader import Batch, ImageFormat, ImageLoader

SIDE, IMAGES, GLOBAL_BATCH = 112, 384, 32
STEPS_PER_EPOCH = IMAGES // GLOBAL_BATCH
BATCH_BYTES = GLOBAL_BATCH * 3 * SIDE * SIDE * 4
EPOCHS = 12
MOST_GROWTH_BYTES = 8 * BATCH_BYTES  # 39 MB in six epochs, which decode to 72 batches
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
AUGMENTATION = Augmentation(mirror=0.5, blur=0.2, erase=0.2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> RecordSource:
    """Noise, which JPEG cannot make small: 20 kB an image, so that bytes kept anywhere would show."""
    path, rng = tmp_path_factory.mktemp("records") / "train.rec", np.random.default_rng(0)
    with RecordWriter(path) as writer:
        for number in range(IMAGES):
            file = io.BytesIO()
            noise = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(noise).save(file, "JPEG", quality=95)
            writer.append(number, file.getvalue())
    assert path.stat().st_size > IMAGES * 15_000
    return RecordSource(path)


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def growth_bytes(source: RecordSource, use: Callable[[Batch], object]) -> int:
    """How much more the process holds at the least of its last six epochs than at that of its first six.

    The least, as what is read ahead and what glibc keeps comes and goes by whole batches.
    """
    batches = ImageLoader(
        source,
        ImageFormat(SIDE, SIDE, channels_last=True),  # as in training: no copy is made of what DALI hands over
        global_batch=GLOBAL_BATCH,
        rank=0,
        size=1,
        seed=1,
        augmentation=AUGMENTATION,
    )
    held = []
    for _ in range(EPOCHS):
        for batch in islice(batches, STEPS_PER_EPOCH):
            use(batch)
            del batch
        held.append(resident_bytes())
    return min(held[EPOCHS // 2 :]) - min(held[: EPOCHS // 2])


def test_host_memory_does_not_grow_from_epoch_to_epoch(source: RecordSource) -> None:
    assert growth_bytes(source, lambda batch: batch.images.sum()) < MOST_GROWTH_BYTES


def test_a_loader_whose_batches_are_kept_grows(source: RecordSource) -> None:
    """The measure above must be able to fail: one batch in two kept."""
    kept: list[Batch] = []
    growth = growth_bytes(source, lambda batch: kept.append(batch) if int(batch.labels[0]) % 2 else None)
    assert growth > 2 * MOST_GROWTH_BYTES
