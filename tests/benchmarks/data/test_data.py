"""The benchmark of the data pipeline: its contenders do the same work, and its figures are what was spent."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.data import __main__ as data
from benchmarks.data.__main__ import document_part
from benchmarks.data.contenders import CONTENDERS, Task, pillow_pixels
from benchmarks.data.costs import Cost, costs, spent, used_cpu_seconds
from benchmarks.documents import with_part
from benchmarks.workers import WorkerError
from data_pipeline.formats.by_path import source_at
from data_pipeline.loader.image_loader import Batch
from data_pipeline.packing.synthetic import pack_synthetic

SIDE, BATCH = 32, 12
BURN = "import time\nwhile time.process_time() < {}: pass"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces") / "set"
    pack_synthetic(folder, identities=5, images=10, size=SIDE, workers=1)
    return folder


@pytest.fixture(scope="module")
def task(path: Path) -> Task:
    return Task(source_at(path), SIDE, BATCH, workers=1)


@pytest.fixture(scope="module")
def expected(task: Task) -> list[Batch]:
    """Three batches by a plain loop over Pillow's pixels."""
    batches = []
    for step in range(3):
        order = task.order(step)
        pixels = [
            pillow_pixels(task.source.read(sample), is_mirrored)
            for sample, is_mirrored in zip(order.samples.tolist(), order.parameters["flip"].tolist(), strict=True)
        ]
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()
        batches.append(Batch((images - 127.5) / 127.5, torch.from_numpy(task.source.labels[order.samples])))
    return batches


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_makes_the_same_batches(name: str, task: Task, expected: list[Batch]) -> None:
    workers = 0 if "DataLoader" in name else 1  # a fork of this process, in which DALI has run, may hang
    found = list(CONTENDERS[name](replace(task, workers=workers), len(expected)))
    assert len(found) == len(expected)
    for batch, witness in zip(found, expected, strict=True):
        assert batch.labels.tolist() == witness.labels.tolist()
        assert batch.images.dtype == torch.float32
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert float((batch.images - witness.images).abs().max()) < 3 / 127.5  # decoders round apart, by a level or two


def test_half_of_the_images_are_mirrored(task: Task) -> None:
    flips = np.concatenate([task.order(step).parameters["flip"] for step in range(40)])
    assert 0.4 < flips.mean() < 0.6


def test_cpu_time_is_that_of_this_process_and_of_its_ended_children() -> None:
    before = used_cpu_seconds()
    subprocess.run([sys.executable, "-S", "-c", BURN.format(0.3)], check=True)
    assert 0.3 <= used_cpu_seconds() - before < 1.0


def test_the_cost_is_that_of_the_further_images() -> None:
    cost = Cost([1.0, 0.9], [2.9, 3.0], [4.0, 4.5], [9.0, 8.0])
    assert cost.cpu_microseconds(1000) == pytest.approx(2000)
    assert cost.images_per_second(1000) == pytest.approx(250)


def test_a_run_is_counted_from_its_start_to_its_end(task: Task, expected: list[Batch]) -> None:
    def burning(task: Task, count: int) -> Iterator[Batch]:
        subprocess.run([sys.executable, "-S", "-c", BURN.format(0.2)], check=True)
        yield from expected[:count]

    cpu, seconds = spent(burning, task, 2)
    assert cpu >= 0.2
    assert seconds >= 0.2
    with pytest.raises(AssertionError):
        spent(burning, Task(task.source, SIDE, BATCH + 1, 1), 2)


@pytest.mark.processes
def test_a_measurement_fills_the_document_and_the_file(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "data.md"
    document.write_text("before\n<!-- data -->\nold\n<!-- /data -->\nafter\n")
    sizes = f"--side {SIDE} --batch 8 --workers 1 --turns 2 --short 1 --long 30".split()
    files = ["--json", str(tmp_path / "out.json"), "--document", str(document)]
    assert data.main(["--data", str(path), *sizes, *files]) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert list(result["loaders"]) == ["ImageLoader", "DataLoader + Pillow"]
    for found in result["loaders"].values():
        assert len(found["long_cpu_seconds"]) == 2
        assert found["cpu_microseconds_per_image"] > 0
    assert result["images"] == 50
    written = document.read_text()
    assert written == with_part(written, "data", document_part(result))
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "old" not in written
    assert "| ImageLoader |" in capsys.readouterr().out


@pytest.mark.processes
def test_a_contender_that_ends_early_is_named(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.data.costs.CONTENDERS", {"nobody": None})
    with pytest.raises(WorkerError, match="nobody: KeyError: 'nobody'"):
        costs(task, turns=1, short=1, long=2)


@pytest.mark.parametrize("arguments", [["--short", "5", "--long", "5"], ["--short", "0"], ["--turns", "0"]])
def test_a_measurement_of_nothing_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="expected 0 < --short < --long"):
        data.main(arguments)


def test_the_table_compares_with_ours() -> None:
    loader: dict[str, Any] = {"cpu_microseconds_per_image": 150.0, "times_our_cpu": 1.0, "images_per_second": 6500.0}
    other = {"cpu_microseconds_per_image": 525.0, "times_our_cpu": 3.5, "images_per_second": 2000.4}
    facts = dict.fromkeys(("side", "turns", "long", "batch", "short", "workers", "machine", "date"), 1)
    result = {"loaders": {"ours": loader, "theirs": other}, "images": 4000, "bytes_per_image": 5, "load_before": 1.0}
    part = document_part({**result, **facts})
    assert "| ours | 150 | 1.00 | 6,500 |\n| theirs | 525 | 3.50 | 2,000 |" in part
