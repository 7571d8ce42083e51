"""Everything that needs a GPU, in one go: the tests marked `gpu`, then the classifier's performance.

    python -m benchmarks.gpu

leaves `docs/performance/MACHINE/gpu_tests.txt` beside the records, named after the GPU, and the tables in
`docs/performance.md`: files to bring home from a machine that is only lent. A second run goes on where it was stopped.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.documents import DOCS
from benchmarks.machine import this_machine
from benchmarks.performance import __main__ as performance

TESTS = (sys.executable, "-m", "pytest", "-m", "gpu", "-v", "-rA", "--durations=10")


def main(docs: Path = DOCS) -> int:
    """The worse of both exit codes; 2 on a machine without a CUDA device."""
    if not torch.cuda.is_available():
        print("gpu: this machine has no CUDA device", file=sys.stderr)
        return 2
    machine = this_machine("cuda")
    log = docs / performance.PART / machine.name / "gpu_tests.txt"
    print(f"{machine.description}\ntests -> {log}", flush=True)
    tests = exit_code_of_tests(log, machine.description)
    print(f"the tests ended with exit code {tests}; now the benchmark", flush=True)
    return max(tests, performance.main(["--device", "cuda", "--docs", str(docs)]))


def exit_code_of_tests(log: Path, heading: str, command: tuple[str, ...] = TESTS) -> int:
    """Run the tests, all they say into `log` under `heading`; their exit code."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        print(f"{heading}\n{' '.join(command[1:])}\n", file=file, flush=True)
        return subprocess.run(command, cwd=DOCS.parent, stdout=file, stderr=subprocess.STDOUT).returncode


if __name__ == "__main__":
    sys.exit(main())
