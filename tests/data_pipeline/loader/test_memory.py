"""Host memory over epochs: what a loader holds after the first one is all that it will ever hold."""

import gc
import io
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.augment.augmentation import Augmentation
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.loader.image_loader import ImageFormat, ImageLoader

SIDE, IMAGES, GLOBAL_BATCH = 112, 384, 32
STEPS_PER_EPOCH = IMAGES // GLOBAL_BATCH
BATCH_BYTES = GLOBAL_BATCH * 3 * SIDE * SIDE * 4
WARM_UP_EPOCHS, EPOCHS = 3, 12
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


def growth_bytes(source: RecordSource, *, keeps: bool) -> int:
    """How much more a process holds at the least of its last six epochs than at that of the six before them.

    The least, as what is read ahead and what glibc keeps comes and goes by whole batches. ``keeps``: the process keeps
    about one batch in two. It is a process of its own: what glibc kept of other tests would hide a growth.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        return processes.submit(_growth_bytes, source, keeps).result()


def _growth_bytes(source: RecordSource, keeps: bool) -> int:
    batches = ImageLoader(
        source,
        ImageFormat(SIDE, SIDE, channels_last=True),  # as in training: no copy is made of what DALI hands over
        global_batch=GLOBAL_BATCH,
        rank=0,
        size=1,
        seed=1,
        augmentation=AUGMENTATION,
    )
    kept, held = [], []
    for epoch in range(WARM_UP_EPOCHS + EPOCHS):
        for batch in islice(batches, STEPS_PER_EPOCH):
            if keeps and int(batch.labels[0]) % 2:
                kept.append(batch)
            del batch
        if epoch >= WARM_UP_EPOCHS:
            held.append(resident_bytes())
    return min(held[EPOCHS // 2 :]) - min(held[: EPOCHS // 2])


def test_host_memory_does_not_grow_from_epoch_to_epoch(source: RecordSource) -> None:
    assert growth_bytes(source, keeps=False) < MOST_GROWTH_BYTES


def test_a_loader_whose_batches_are_kept_grows(source: RecordSource) -> None:
    """The measure above must be able to fail."""
    assert growth_bytes(source, keeps=True) > 2 * MOST_GROWTH_BYTES
