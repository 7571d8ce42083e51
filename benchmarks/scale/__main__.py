"""A million identities and four million images: made, opened, shuffled and trained on, with what each step takes.

    python -m benchmarks.scale --data DIR --run-dir DIR          # some 20 minutes on two cores; 2 GB, or 3 with models
    python -m benchmarks.scale --document                        # the tables again, from what is there

The set is made by `partial-fc pack synthetic` where DIR has none. Opening, the first batch and the shuffle are measured
by processes of their own (`probes.py`), training by `partial-fc train` itself. A finished part is kept
in the JSON and not measured again; `--again opening` measures it again. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.arguments import parser
from benchmarks.documents import DOCS, write_part
from benchmarks.machine import this_machine
from benchmarks.probes import first_batch, opening, probed, shuffle
from benchmarks.processes import ranks_under, status_bytes, used_cpu_seconds
from benchmarks.results import write_json
from benchmarks.scale.tables import TITLES, document_part
from benchmarks.trainer import Report, TrainingError, train

PART = "scale"
PACKING = "packing.json"  # beside the set, which may be older than the figures of the rest
PARTS = ("packing", "opening", "first_batch", "shuffle", *TITLES)
OPENINGS = 5
REPORTS = 60  # of a run
WARMUP_STEPS = 20
MEMORY = {"peak": "VmHWM", "own": "RssAnon"}
Part = Callable[[], Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is not there yet and write the tables. 0: done; 1: packing, a probe or a training failed, or the
    set that is there is another one.
    """
    arguments = _parser()
    chosen = arguments.parse_args(argv)
    if not chosen.document:
        if chosen.data is None or chosen.run_dir is None:
            arguments.error("expected --data and --run-dir, or --document alone")
        name = f"{chosen.identities}x{chosen.images}.json"
        path = chosen.json or chosen.docs / "performance" / this_machine("cpu").name / PART / name
        try:
            measure(parts(chosen), path, again=chosen.again or ())
        except (ValueError, subprocess.CalledProcessError, TrainingError) as error:
            print(f"scale: {error}", file=sys.stderr)
            return 1
    write_document(chosen.docs)
    return 0


def parts(chosen: argparse.Namespace) -> dict[str, Part]:
    """The measurements by name, in the order in which they are made."""
    folder, sized = chosen.data, {"size": chosen.size, "batch": chosen.batch}

    def trained(objective: str, steps: int) -> dict[str, Any]:
        epochs_per_step = chosen.batch / (chosen.identities * chosen.images)
        settings = {
            "data.train": folder,
            "data.image_size": chosen.size,
            "objective.name": objective,
            "schedule.epochs": steps * epochs_per_step,
            "schedule.batch_size": chosen.batch,
            "schedule.warmup_epochs": min(WARMUP_STEPS, steps // 2) * epochs_per_step,
            "report.every_steps": max(steps // REPORTS, 1),
        }
        return training(settings, chosen.run_dir / objective, ranks=chosen.nproc)

    return {
        "packing": partial(packing, chosen),
        "opening": lambda: [probed(opening, folder) for _ in range(OPENINGS)],
        "first_batch": lambda: probed(first_batch, folder, **sized, start_seconds=time.time()),
        "shuffle": partial(probed, shuffle, folder),
        "p2sgrad": partial(trained, "p2sgrad", chosen.steps),
        "adacos": partial(trained, "adacos", chosen.softmax_steps),
    }


def measure(waiting: dict[str, Part], path: Path, *, again: Sequence[str]) -> None:
    """Make every measurement that the JSON at `path` lacks, and those named in `again`."""
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, part in waiting.items():
        if name in result and name not in again:
            continue
        load, began = os.getloadavg()[0], time.perf_counter()
        result[name] = {"load": load, "date": time.strftime("%Y-%m-%d"), "figures": part()}
        result["machine"] = asdict(this_machine("cpu"))
        write_json(result, path)
        print(f"{name}, in {time.perf_counter() - began:.0f} s: {json.dumps(result[name]['figures'])}", flush=True)


def packing(chosen: argparse.Namespace) -> dict[str, Any]:
    """What the set is and what making it took; it is made if it is not there."""
    folder: Path = chosen.data
    asked = {name: getattr(chosen, name) for name in ("identities", "images", "size", "quality")}
    if not (folder / "train.rec").exists():
        words = ["pack", "synthetic", "--out", str(folder), *(f"--{name}={value}" for name, value in asked.items())]
        began, used_seconds = time.perf_counter(), used_cpu_seconds()
        subprocess.run([sys.executable, "-m", "launch.cli", *words], check=True)
        took = {"seconds": time.perf_counter() - began, "cpu_seconds": used_cpu_seconds() - used_seconds}
        write_json(took, folder / PACKING)
    found, expected = (folder / "property").read_text(), f"{chosen.identities},{chosen.size},{chosen.size}\n"
    if found != expected:
        raise ValueError(f"{folder} has a set of {found.strip()} (identities, height, width), not {expected.strip()}")
    took = json.loads((folder / PACKING).read_text()) if (folder / PACKING).exists() else {}
    sizes = {f"{name}_bytes": (folder / f"train.{name}").stat().st_size for name in ("rec", "idx")}
    return {**asked, **took, **sizes}


def write_document(docs: Path) -> None:
    """Write the tables of every finished measurement into `performance.md`."""
    paths = sorted((docs / "performance").glob(f"*/{PART}/*.json"))
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    body = "\n\n".join(document_part(result) for result in results if result.keys() >= set(PARTS)) or "No results yet."
    write_part(docs / "performance.md", PART, body)


def training(settings: Mapping[str, Any], run_dir: Path, *, ranks: int) -> dict[str, Any]:
    """Figures of a training with these settings on `ranks` ranks, and the most memory that each rank had.

    `VmHWM` is the kernel's own mark of all that is resident; `RssAnon`, what is the process's alone and in no file, is
    looked at four times a second. What a rank took in its last quarter of a second may be missing.
    """
    peaks: dict[int, dict[str, int]] = {}

    def look(trainer: int) -> None:
        for rank in ranks_under(trainer):
            peak = peaks.setdefault(rank, dict.fromkeys(MEMORY.values(), 0))
            peak |= {field: max(most, status_bytes(field, rank)) for field, most in peak.items()}

    began = time.time()
    reports = train(settings, run_dir, ranks=ranks, watch=look)
    memory = {
        f"{kind}_bytes_of_ranks": [peaks[rank][field] for rank in sorted(peaks)] for kind, field in MEMORY.items()
    }
    return {**figures(reports, began), **memory}


def figures(reports: list[Report], began: float) -> dict[str, Any]:
    """What the reports of a run say of it; `began` is when its command was started."""
    first, last = reports[0], reports[-1]
    step_seconds = [report["step_seconds"] for report in reports]
    total_seconds = sum(report["interval_steps"] * report["step_seconds"] for report in reports)
    waited_seconds = sum(report["interval_steps"] * report["data_wait_seconds"] for report in reports)
    tenth = max(len(reports) // 10, 1)
    return {
        "steps": last["step"],
        "batch": first["interval_images"] // first["interval_steps"],
        "to_first_step_seconds": first["timestamp_seconds"] - first["interval_steps"] * first["step_seconds"] - began,
        "images_per_second": statistics.median(report["images_per_second"] for report in reports),
        "step_seconds": statistics.median(step_seconds),
        "least_step_seconds": min(step_seconds),
        "most_step_seconds": max(step_seconds),
        "wait_share": waited_seconds / total_seconds,
        "first_loss": statistics.mean(report["loss"] for report in reports[:tenth]),
        "last_loss": statistics.mean(report["loss"] for report in reports[-tenth:]),
    }


def _parser() -> argparse.ArgumentParser:
    arguments = parser("scale", __doc__)
    arguments.add_argument("--data", type=Path, help="the set, which is made there if there is none")
    arguments.add_argument("--run-dir", type=Path, help="where the trainings write; 0.5 GB each")
    arguments.add_argument("--identities", type=int, default=1_000_000, help="(default: %(default)s)")
    arguments.add_argument("--images", type=int, default=4, help="of each (default: %(default)s)")
    arguments.add_argument("--size", type=int, default=24, help="side in pixels (default: %(default)s)")
    arguments.add_argument("--quality", type=int, default=75, help="of the JPEGs (default: %(default)s)")
    arguments.add_argument("--batch", type=int, default=512, help="images of all ranks (default: %(default)s)")
    arguments.add_argument("--steps", type=int, default=300, help="of P2SGrad (default: %(default)s)")
    arguments.add_argument("--softmax-steps", type=int, default=100, help="of AdaCos (default: %(default)s)")
    arguments.add_argument("--nproc", type=int, default=2, help="ranks (default: %(default)s)")
    arguments.add_argument("--again", nargs="+", choices=PARTS, help="measure these once more")
    arguments.add_argument("--json", type=Path, help="(default: docs/performance/MACHINE/scale/IDENTITIESxIMAGES.json)")
    arguments.add_argument("--docs", type=Path, default=DOCS, help="holds performance.md and performance/")
    arguments.add_argument("--document", action="store_true", help="write the tables; measure nothing")
    return arguments


if __name__ == "__main__":
    raise SystemExit(main())
