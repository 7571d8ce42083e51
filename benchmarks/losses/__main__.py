"""Run the loss comparison on Omniglot, run by run, and go on where it was stopped.

    python -m benchmarks.losses --data data/omniglot --out docs/experiments/losses

`runs.py` is the table, with `--table claims` it is `claims.py`. Every run is the real trainer in processes of its own;
its result is kept as one JSON file, and a run whose file is there is not run again. `python -m benchmarks.losses.plots`
draws what is there so far.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import parser
from benchmarks.documents import DOCS
from benchmarks.losses.claims import CLAIMS
from benchmarks.losses.results import Result, curve, measures
from benchmarks.losses.runs import EPOCHS, RUNS, Run, plan
from benchmarks.losses.sets import prepare
from benchmarks.machine import this_machine
from benchmarks.results import CaseError, SweepError, print_plan, read_json, sweep, unfinished
from launch.assembly.run_folder import RunFolder
from launch.errors import ExitCode

ROOT = DOCS.parent
CONFIG = ROOT / "configs" / "omniglot.yaml"
FOR_ALL_RUNS = (ExitCode.BAD_CONFIG, ExitCode.BAD_DATA, ExitCode.INTERRUPTED)
LOG_TAIL_LINES = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is planned and not there yet. 0: all is there; 1: a run failed; 2: nothing can be run; 130: stopped."""
    arguments = _parser().parse_args(argv)
    runs = {"losses": RUNS, "claims": CLAIMS}[arguments.table]
    out = arguments.out or DOCS / "experiments" / arguments.table
    planned = {f"{run.name}-seed{seed}": (run, seed) for run, seed in plan(runs)}
    if unknown := set(arguments.only or planned) - planned.keys():
        print(f"losses: there is no run {', '.join(sorted(unknown))}; --list names them", file=sys.stderr)
        return 2
    settings = {name: run.settings(seed, arguments.epochs) for name, (run, seed) in planned.items()}
    try:
        names = unfinished(settings, out, lambda path: read_json(path, Result).settings)
    except ValueError as error:
        print(f"losses: {error}", file=sys.stderr)
        return 2
    waiting = {name: planned[name] for name in names if name in (arguments.only or planned)}
    if arguments.list:
        print_plan({name: f"{run.group:7} {run.label}" for name, (run, _) in planned.items()}, waiting)
        return 0
    if arguments.data is None:
        print("losses: give --data, the folder that holds background/ and evaluation/", file=sys.stderr)
        return 2
    print(f"{len(planned) - len(names)} of {len(planned)} runs are in {out}", flush=True)
    return run_all(waiting, out, data=arguments.data, epochs=arguments.epochs, nproc=arguments.nproc)


def run_all(waiting: Mapping[str, tuple[Run, int]], out: Path, *, data: Path, epochs: float, nproc: str) -> int:
    """Run all that is `waiting`, keep each result in `out`, and give back the exit code of the whole."""

    def measured(case: tuple[Run, int]) -> tuple[dict[str, Any], str]:
        result = trained(*case, data=data, epochs=epochs, nproc=nproc)
        return asdict(result), f"    rank-1 {result.evaluation['rank1']:.4f}" if result.evaluation else "    diverged"

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core a rank
    return sweep(waiting, out, measured)


def trained(run: Run, seed: int, *, data: Path, epochs: float, nproc: str) -> Result:
    """The result of one run, in a scratch folder that is gone afterwards. CaseError if there is none."""
    settings = run.settings(seed, epochs)
    try:
        prepare(run, data)
    except OSError as error:
        raise CaseError(f"its images cannot be made: {error}") from error
    with tempfile.TemporaryDirectory(prefix="partial-fc-losses-") as scratch:
        run_dir, log = Path(scratch) / run.name, Path(scratch) / "log.txt"
        began = time.perf_counter()
        exit_code = exit_code_of_trainer(words(settings, data, run_dir, nproc, (run.train, run.evaluate)), log)
        seconds, lines = time.perf_counter() - began, log.read_text(errors="replace").splitlines()
        if exit_code not in (ExitCode.DONE, ExitCode.DIVERGED):
            tail = "\n".join([f"exit code {exit_code}; the last lines:", *lines[-LOG_TAIL_LINES:]])
            raise SweepError(tail) if exit_code in FOR_ALL_RUNS else CaseError(tail)
        folder, is_finished = RunFolder(run_dir), exit_code == ExitCode.DONE
        metrics = folder.metrics.read_text().splitlines() if folder.metrics.exists() else []
        return Result(
            name=run.name,
            label=run.label,
            group=run.group,
            seed=seed,
            outcome="finished" if is_finished else "diverged",
            message="" if is_finished else _last_message(lines),
            settings=settings,
            evaluation=measures(json.loads(folder.evaluation.read_text())) if is_finished else None,
            curve=curve([json.loads(line) for line in metrics]),
            seconds=round(seconds, 1),
            machine={**asdict(this_machine("cuda" if torch.cuda.is_available() else "cpu")), "nproc": nproc},
        )


def words(
    settings: Mapping[str, Any],
    data: Path,
    run_dir: Path,
    nproc: str,
    sets: tuple[str, str] = ("background", "evaluation"),
) -> list[str]:
    """The trainer's arguments for one run: the configuration, and what differs from it by dotted key.

    A loss that is not finite ends a run: whether that happens is one of the questions. The configuration's own stages
    are left out.
    """
    places = {"run_dir": run_dir, "data.train": data / sets[0], "data.evaluate": data / sets[1]}
    common = {"schedule.stages": None, "divergence.most_skipped": 0}
    values = {**common, **settings, **{key: str(place.resolve()) for key, place in places.items()}}
    overrides = (f"{key}={json.dumps(value)}" for key, value in values.items())  # JSON is YAML
    return [str(CONFIG), "--nproc", nproc, *(word for override in overrides for word in ("--set", override))]


def exit_code_of_trainer(arguments: Sequence[str], log: Path) -> int:
    """The exit code of `partial-fc train` with these arguments; all that it prints goes into `log`.

    The trainer ends before this call does, whatever ends the call.
    """
    command = [sys.executable, "-m", "launch.cli", "train", *arguments]
    with log.open("wb") as file, subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()  # its ranks end with it
            raise


def _last_message(lines: Sequence[str]) -> str:
    said = [line for line in lines if line.startswith("partial-fc: ")]
    return said[-1].removeprefix("partial-fc: ") if said else ""


def _parser() -> argparse.ArgumentParser:
    arguments = parser("losses", __doc__)
    arguments.add_argument("--data", type=Path, help="the folder that `make omniglot` makes: background/, evaluation/")
    arguments.add_argument("--out", type=Path, help="where results go (default: docs/experiments/TABLE)")
    arguments.add_argument("--table", choices=("losses", "claims"), default="losses", help="which runs")
    arguments.add_argument("--epochs", type=float, default=EPOCHS, help="of every run (default: %(default)s)")
    arguments.add_argument("--nproc", default="1", help="ranks of each run, as partial-fc train takes it")
    arguments.add_argument("--only", nargs="+", metavar="NAME", help="these runs only, as --list names them")
    arguments.add_argument("--list", action="store_true", help="tell what is planned and what is there; run nothing")
    return arguments


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the trainer with us, as Ctrl-C does
    sys.exit(main())
