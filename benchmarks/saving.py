"""What a save costs a training: how long it waits, how long the writing takes, how much slower the steps beside it are.

    python -m benchmarks.saving --folder FOLDER                           # a head of 400,000 classes: 1.6 GB
    python -m benchmarks.saving --folder FOLDER --json OUT --document docs/resume.md
    python -m benchmarks.saving --folder FOLDER --device cuda

A head with momentum is saved again and again while it takes training steps (CosFace, 1 % of the classes) on random
embeddings. In turns with that, in the same process and folder: a plain copy of as many bytes between two tensors whose
memory was there before, into pinned memory from a GPU; and a plain file of as many bytes, written and synced.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.arguments import parser
from benchmarks.documents import publish, table
from benchmarks.machine import this_machine
from partial_fc import CosFace, RowSGD, ShardedClassifier, World
from partial_fc.checkpoint.saving import Saver
from partial_fc.checkpoint.tensor_file import PIECE_BYTES
from partial_fc.checkpoint.training_state import TrainingState
from partial_fc.checkpoint.writing import Saved

PART, SAMPLE_RATE = "saving", 0.01
Figures = dict[str, Any]


class Training:
    """A head that trains on random embeddings, and its checkpoints."""

    def __init__(self, chosen: argparse.Namespace, folder: Path) -> None:
        device = torch.device(chosen.device)
        head = ShardedClassifier(
            *(chosen.classes, chosen.dim, CosFace()),
            world=World(),
            sample_rate=SAMPLE_RATE,
            row_optimizer=RowSGD(0.01, momentum=0.9),
        )
        self.head, network = head.to(device), nn.Linear(chosen.dim, chosen.dim, device=device)
        self.embeddings_ND = torch.randn(chosen.batch, chosen.dim, device=device)
        self.labels_N = torch.randint(chosen.classes, (chosen.batch,), device=device)
        self.saved: list[Saved] = []
        state = TrainingState(network, self.head, torch.optim.SGD(network.parameters(), 0.1), World())
        self.saver = Saver(
            folder, state, {}, keep_last=1, in_background=not chosen.in_parts, on_saved=self.saved.append
        )
        self.saver.prepare()

    def step_seconds(self) -> float:
        """Seconds of one step, to the end of its last kernel."""
        began = time.perf_counter()
        self.head(self.embeddings_ND.requires_grad_(), self.labels_N).backward()
        finish(self.embeddings_ND.device)
        return time.perf_counter() - began

    def save(self, number: int) -> Figures:
        """One save, and the steps while it is written."""
        began = time.perf_counter()
        self.saver.save(number)
        waited = time.perf_counter() - began
        beside = []
        while len(self.saved) < number:
            seconds = self.step_seconds()
            if len(self.saved) < number:  # the last one had the machine to itself for a part of it
                beside.append(seconds)
        self.saver.wait()
        saved = self.saved[-1]
        assert saved.pause_seconds <= waited
        return {"pause": waited, "writing": saved.writing_seconds, "bytes": saved.size_bytes, "steps_beside": beside}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write where asked to."""
    chosen = _parser().parse_args(argv)
    folder = Path(mkdtemp(prefix="saving-", dir=chosen.folder))
    try:
        saves, steps = measured(chosen, folder)
    finally:
        shutil.rmtree(folder)
    result = {
        "machine": this_machine(chosen.device).description,
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "classes": chosen.classes,
        "dim": chosen.dim,
        "batch": chosen.batch,
        "in_parts": chosen.in_parts,
        "steps_alone": steps,
        "saves": saves,
    }
    publish(result, PART, document_part(result), kept=chosen.json, document=chosen.document)
    return 0


def measured(chosen: argparse.Namespace, folder: Path) -> tuple[list[Figures], list[float]]:
    """The figures of every save, and the seconds of steps with nothing beside them."""
    training, alone, saves = Training(chosen, folder), [], []
    weight = training.head.weight.detach()
    plain = torch.zeros(2 * weight.numel(), pin_memory=weight.is_cuda).view(2, *weight.shape)
    for number in range(1, 1 + chosen.saves):
        alone += [training.step_seconds() for _ in range(chosen.steps)]
        copy = copy_seconds(weight, plain)
        saves.append({**training.save(number), "copy": copy, "file": file_seconds(plain, folder / "plain")})
        print("  ".join(f"{name} {saves[-1][name]:.2f} s" for name in ("pause", "copy", "writing", "file")), flush=True)
    return saves, alone


def copy_seconds(weight: Tensor, plain: Tensor) -> float:
    """Seconds to copy the rows, and as many bytes for their momentum, once."""
    began = time.perf_counter()
    for place in plain:
        place.copy_(weight, non_blocking=True)
    finish(weight.device)
    return time.perf_counter() - began


def file_seconds(plain: Tensor, path: Path) -> float:
    """Seconds to write these bytes into a new file and to have them on the disk."""
    data = plain.view(-1).view(torch.uint8).numpy().data
    began = time.perf_counter()
    with path.open("wb") as file:
        for first in range(0, len(data), PIECE_BYTES):
            file.write(data[first : first + PIECE_BYTES])
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def finish(device: torch.device) -> None:
    """Wait for the kernels on their way."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def document_part(result: dict[str, Any]) -> str:
    """The table and the machine, in Markdown."""
    first, *later = result["saves"]
    size_bytes, alone = first["bytes"], median(result["steps_alone"])

    def row(name: str, seconds: float, of: float, what: str) -> list[str]:
        return [name, f"{seconds:.2f}", f"{size_bytes / seconds / 1e9:.2f}", f"{seconds / of:.2f} x {what}"]

    def middle(key: str, of: Callable[[Figures], float] = lambda save: 1.0) -> float:
        return float(median(save[key] / of(save) for save in later))

    copy, file = middle("copy"), middle("file")
    rows = [
        row("pause, first save", first["pause"], first["copy"], "a copy"),
        row("pause, later saves", middle("pause"), middle("pause") / middle("pause", lambda s: s["copy"]), "a copy"),
        row("a plain copy in memory", copy, copy, "a copy"),
    ]
    if not result["in_parts"]:
        rows.append(
            row("writing", middle("writing"), middle("writing") / middle("writing", lambda s: s["file"]), "a file")
        )
    rows.append(row("a plain file, synced", file, file, "a file"))
    beside = [seconds for save in result["saves"] for seconds in save["steps_beside"]]
    steps = f"A step takes {alone:.2f} s alone"
    if beside:
        steps += f" and {median(beside):.2f} s while a checkpoint is written, {median(beside) / alone:.2f} x"
    return (
        f"{table(['', 's', 'GB/s', 'against'], rows)}\n\n"
        f"{size_bytes / 1e9:.2f} GB: {result['classes']:,} classes of {result['dim']} dimensions with momentum, one "
        f"rank{', written in parts' if result['in_parts'] else ''}; medians of {len(later)} saves, each against the "
        f"copy and the file beside it. {steps} (N = {result['batch']}, medians). {result['machine']}, load "
        f"{result['load']:.1f}. {result['date']}."
    )


def _parser() -> argparse.ArgumentParser:
    arguments = parser("saving", __doc__)
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments.add_argument("--classes", type=int, default=400_000, help="(default: %(default)s)")
    arguments.add_argument("--dim", type=int, default=512, help="(default: %(default)s)")
    arguments.add_argument("--batch", type=int, default=256, help="embeddings of a step (default: %(default)s)")
    arguments.add_argument("--saves", type=int, default=6, help="at least 2: the first is told apart (%(default)s)")
    arguments.add_argument("--steps", type=int, default=10, help="before each save, nothing beside (%(default)s)")
    arguments.add_argument("--in-parts", action="store_true", help="as where a second copy does not fit")
    arguments.add_argument("--folder", type=Path, help="where checkpoints go, on the disk to measure (temporary)")
    arguments.add_argument("--json", type=Path, help="where the figures go, every save's")
    arguments.add_argument("--document", type=Path, help="a Markdown file with the markers of this part")
    return arguments


if __name__ == "__main__":
    raise SystemExit(main())
