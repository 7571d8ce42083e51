"""Run the loss comparison on Omniglot, run by run, and go on where it was stopped.

    python -m benchmarks.losses --data data/omniglot --out docs/experiments/losses

`runs.py` is the table. Every run is the real trainer in processes of its own; its result is kept as one JSON file,
and a run whose file is there is not run again. Start the same command once per core: each takes the next run that no
other has taken. `python -m benchmarks.losses.plots` draws what is there so far.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from benchmarks.losses.results import Result, curve, measures, read_result, result_path, typical_speed, write_result
from benchmarks.losses.runs import EPOCHS, RUNS, Run, plan

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "omniglot.yaml"
DONE, DIVERGED = 0, 4  # launch/errors.py
FOR_ALL_RUNS = {2: "the configuration", 3: "the data", 130: "an interrupt"}
LOG_TAIL_LINES = 20


class RunError(RuntimeError):
    """A run that ended without a result. `is_hopeless`: the next one would end the same way."""

    def __init__(self, message: str, *, is_hopeless: bool) -> None:
        super().__init__(message)
        self.is_hopeless = is_hopeless


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is planned and not there yet. 0: all is there; 1: a run failed; 2: nothing can be run; 130: stopped."""
    arguments = _parser().parse_args(argv)
    runs = [run for run in RUNS if arguments.only is None or run.name in arguments.only]
    planned = plan(runs, arguments.seeds)
    try:
        waiting = unfinished(planned, arguments.out, arguments.epochs)
    except ValueError as error:
        print(f"losses: {error}", file=sys.stderr)
        return 2
    if arguments.list:
        print_plan(planned, waiting)
        return 0
    if arguments.data is None:
        print("losses: give --data, the folder that holds background/ and evaluation/", file=sys.stderr)
        return 2
    print(f"{len(planned) - len(waiting)} of {len(planned)} runs are in {arguments.out}", flush=True)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the trainer with us, as Ctrl-C does
    try:
        return sweep(waiting, data=arguments.data, out=arguments.out, epochs=arguments.epochs, nproc=arguments.nproc)
    except KeyboardInterrupt:
        print("losses: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def unfinished(planned: Sequence[tuple[Run, int]], out: Path, epochs: float) -> list[tuple[Run, int]]:
    """The planned runs whose result is not in `out`.

    Raises ValueError where a result is there but from other settings: figures of two schedules must not share a table.
    """
    return [(run, seed) for run, seed in planned if not _is_finished(out, run, seed, epochs)]


def sweep(waiting: Sequence[tuple[Run, int]], *, data: Path, out: Path, epochs: float, nproc: str) -> int:
    """Run all that is `waiting`, keep each result in `out`, and give back the exit code of the whole.

    A failed run is told of and left for the next start; the sweep goes on unless the cause is everybody's. A run that
    another sweep is at, or has done meanwhile, is passed over.
    """
    failures = 0
    for number, (run, seed) in enumerate(waiting, 1):
        with claim(out, run, seed) as is_ours:
            if not is_ours or _is_finished(out, run, seed, epochs):
                continue
            print(f"[{number}/{len(waiting)}] {run.name} seed {seed}: {run.label}", flush=True)
            try:
                result = trained(run, seed, data=data, epochs=epochs, nproc=nproc)
            except RunError as failure:
                print(f"losses: {failure}", file=sys.stderr, flush=True)
                failures += 1
                if failure.is_hopeless:
                    break
                continue
            write_result(result, out)
            print(f"    {_summary(result)}", flush=True)
    return 1 if failures else 0


@contextmanager
def claim(out: Path, run: Run, seed: int) -> Iterator[bool]:
    """Whether this process, and no other sweep into `out`, may do the run. A sweep that dies lets go of its claim."""
    out.mkdir(parents=True, exist_ok=True)
    path = result_path(out, run.name, seed).with_suffix(".claim")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def trained(run: Run, seed: int, *, data: Path, epochs: float, nproc: str) -> Result:
    """The result of one run, in a scratch folder that is gone afterwards. RunError if there is none."""
    settings = run.settings(seed, epochs)
    with tempfile.TemporaryDirectory(prefix="partial-fc-losses-") as scratch:
        run_dir, log = Path(scratch) / run.name, Path(scratch) / "log.txt"
        began = time.perf_counter()
        exit_code = _exit_code(command(settings, data, run_dir, nproc), log)
        seconds = time.perf_counter() - began
        if exit_code not in (DONE, DIVERGED):
            raise RunError(_failure(run, seed, exit_code, log), is_hopeless=exit_code in FOR_ALL_RUNS)
        metrics = _json_lines(run_dir / "metrics.jsonl")
        evaluation = measures(json.loads((run_dir / "evaluation.json").read_text())) if exit_code == DONE else None
        return Result(
            name=run.name,
            label=run.label,
            group=run.group,
            seed=seed,
            outcome="diverged" if exit_code == DIVERGED else "finished",
            message=_last_message(log) if exit_code == DIVERGED else "",
            settings=settings,
            evaluation=evaluation,
            curve=curve(metrics),
            images_per_second=typical_speed(metrics),
            seconds=round(seconds, 1),
            machine={**machine(), "nproc": nproc},
        )


def command(settings: Mapping[str, object], data: Path, run_dir: Path, nproc: str) -> list[str]:
    """The trainer's command line. Values are JSON, which YAML reads."""
    paths = {"run_dir": run_dir, "data.train": data / "background", "data.evaluate": data / "evaluation"}
    places = {key: str(path.resolve()) for key, path in paths.items()}
    overrides = [f"{key}={json.dumps(value)}" for key, value in {**settings, **places}.items()]
    trainer = [sys.executable, "-m", "launch.cli", "train", str(CONFIG), "--nproc", nproc]
    return [*trainer, *(word for override in overrides for word in ("--set", override))]


def machine() -> dict[str, Any]:
    """What the speed of a run depends on, and when it was run."""
    return {
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": str(torch.__version__),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def print_plan(planned: Sequence[tuple[Run, int]], waiting: Sequence[tuple[Run, int]]) -> None:
    """Tell what is planned, in order, and what of it is there."""
    for run, seed in planned:
        state = "to do" if (run, seed) in waiting else "done"
        print(f"{state:6}{run.name:34}seed {seed}  {run.group:7} {run.label}")
    print(f"{len(waiting)} of {len(planned)} to do")


def _is_finished(out: Path, run: Run, seed: int, epochs: float) -> bool:
    path = result_path(out, run.name, seed)
    if not path.exists():
        return False
    there, here = read_result(path).settings, run.settings(seed, epochs)
    differing = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
    if differing:
        named = ", ".join(f"{key} is {there.get(key)} there and {here.get(key)} here" for key in differing)
        raise ValueError(f"{path} comes from other settings ({named}): remove it, or give another --out")
    return True


def _exit_code(words: Sequence[str], log: Path) -> int:
    one_core_a_rank = {"OMP_NUM_THREADS": "1", **os.environ}  # as other sweeps have the other cores
    with (
        log.open("wb") as file,
        subprocess.Popen(words, cwd=ROOT, env=one_core_a_rank, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        try:
            return process.wait()
        except BaseException:
            process.terminate()  # its ranks end with it; the scratch folder must outlive them
            process.wait()
            raise


def _failure(run: Run, seed: int, exit_code: int, log: Path) -> str:
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
    why = FOR_ALL_RUNS.get(exit_code, "it broke")
    return f"{run.name} seed {seed} ended with exit code {exit_code} ({why}); its last lines:\n{tail}"


def _last_message(log: Path) -> str:
    said = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("partial-fc: ")]
    return said[-1].removeprefix("partial-fc: ") if said else ""


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _summary(result: Result) -> str:
    outcome = f"rank-1 {result.evaluation['rank1']:.4f}" if result.evaluation else "diverged"
    return f"{outcome}, {result.seconds:.0f} s, {result.images_per_second or 0:.0f} images/s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.losses", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [run.name for run in RUNS]
    parser.add_argument("--data", type=Path, help="the folder that `make omniglot` makes: background/ and evaluation/")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "experiments" / "losses", help="where results go")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help="these runs only; --list names them")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="K", help="these seeds instead of each run's own")
    parser.add_argument("--epochs", type=float, default=EPOCHS, help="of every run (default: %(default)s)")
    parser.add_argument("--nproc", default="1", help="ranks of each run, as partial-fc train takes it")
    parser.add_argument("--list", action="store_true", help="tell what is planned and what is there; run nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
