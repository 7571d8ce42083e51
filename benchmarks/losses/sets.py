"""The sets of images that the runs of `claims.py` need beside Omniglot's own, made where they are not there yet."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from benchmarks.losses.claims import MADE_HELD_OUT, MADE_IMAGES, SIZE
from benchmarks.losses.runs import Run
from data_pipeline.files.whole_folder import whole_folder
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.packing.synthetic import pack_synthetic
from launch.assembly.data import open_held_out


def prepare(run: Run, data: Path) -> None:
    """See that the sets of `run` are in `data`, which holds Omniglot's `background` and `evaluation`."""
    for name in (run.train, run.evaluate):
        if (data / name / "train.rec").exists():
            continue
        kind, _, number = name.partition("-")
        if kind == "few":
            few_images(data / "background", data / name, int(number))
        elif name == "people-held-out":
            people(data / name, MADE_HELD_OUT, 20, first=10_000_000)
        elif kind == "people":
            people(data / name, int(number), MADE_IMAGES // int(number))


def few_images(source: Path, out: Path, images: int) -> None:
    """The first `images` of each identity of `source`, their bytes unchanged, at `out`."""
    kept: Counter[int] = Counter()
    whole = open_held_out(source)
    with whole_folder(out) as folder, RecordWriter(folder / "train.rec") as writer:
        for sample, label in enumerate(whole.labels.tolist()):
            if kept[label] < images:
                kept[label] += 1
                writer.append(label, bytes(whole.read(sample)))


def people(out: Path, identities: int, images: int, first: int = 0) -> None:
    """Drawn people, as `partial-fc pack synthetic` draws them."""
    pack_synthetic(out, identities=identities, images=images, size=SIZE, first_identity=first)
