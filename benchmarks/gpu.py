"""Everything that needs a GPU, in one go: the tests marked `gpu`, then the classifier's performance.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --quick     # the tests and six cases: meant for 25 minutes of one GPU

leaves `docs/performance/MACHINE/gpu_tests.txt` beside the records, named after the GPU, and the tables in
`docs/performance.md`: files to bring home from a machine that is only lent. A second run goes on where it was stopped.
Test files that need what is not installed there (DALI, say) fail as they are collected, and the others run; a warning
of another release of torch fails no test.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.arguments import parser
from benchmarks.documents import DOCS
from benchmarks.machine import this_machine
from benchmarks.performance import __main__ as performance

PYTEST = (sys.executable, "-m", "pytest", "-m", "gpu", "-v", "-rA", "--durations=10")
TESTS = (*PYTEST, "--continue-on-collection-errors", "-W", "default")
TESTS_SECONDS, TIMED_OUT = 600, 124
QUICK = (
    *("adacos-bf16-c250000-dense", "p2sgrad-bf16-c250000-dense-r0.1", "p2sgrad-n1024-dense"),
    *("arcface-bf16", "p2sgrad-all-bf16", "beyond-bf16-n512-dense-r0.1-always"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """The worse of both exit codes; 2 on a machine without a CUDA device."""
    arguments = parser("gpu", __doc__)
    arguments.add_argument("--quick", action="store_true", help=f"of the cases only {', '.join(QUICK)}")
    arguments.add_argument("--docs", type=Path, default=DOCS, help="holds performance.md and performance/")
    chosen = arguments.parse_args(argv)
    if not torch.cuda.is_available():
        print("gpu: this machine has no CUDA device", file=sys.stderr)
        return 2
    machine = this_machine("cuda")
    log = chosen.docs / performance.PART / machine.name / "gpu_tests.txt"
    print(f"{machine.description}\ntests -> {log}", flush=True)
    tests = exit_code_of_tests(log, machine.description)
    print(f"the tests ended with exit code {tests}; now the benchmark", flush=True)
    only = ["--only", *QUICK] if chosen.quick else []
    return max(tests, performance.main(["--device", "cuda", "--docs", str(chosen.docs), *only]))


def exit_code_of_tests(
    log: Path, heading: str, command: tuple[str, ...] = TESTS, limit_seconds: float = TESTS_SECONDS
) -> int:
    """Run the tests, all they say into `log` under `heading`; their exit code, or 124 where they took too long."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        print(f"{heading}\n{' '.join(command[1:])}\n", file=file, flush=True)
        try:
            ended = subprocess.run(
                command, cwd=DOCS.parent, stdout=file, stderr=subprocess.STDOUT, timeout=limit_seconds
            )
        except subprocess.TimeoutExpired:
            print(f"stopped after {limit_seconds:g} s", file=file)
            return TIMED_OUT
        return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
