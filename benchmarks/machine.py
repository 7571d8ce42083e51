"""The machine that a benchmark ran on: what its figures depend on, and a name for a folder."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import torch

GIBIBYTE = 1 << 30
CPUINFO = Path("/proc/cpuinfo")
NOTED_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Machine:
    """What the figures of a benchmark depend on; `gpus` is 0 for a benchmark of the CPU."""

    processor: str
    processor_flags: list[str]
    cores: int
    threads: int
    memory_gibibytes: int
    gpu: str
    gpus: int
    system: str
    python: str
    torch: str
    cuda: str

    @property
    def name(self) -> str:
        """A name for a folder: of what computes, and how many of it."""
        what = f"{self.gpus} {self.gpu}" if self.gpus else f"{self.processor} {self.cores} cores"
        return re.sub(r"[^a-z0-9]+", "-", what.lower()).strip("-")

    @property
    def description(self) -> str:
        """One line for people."""
        flags = f" ({', '.join(self.processor_flags)})" if self.processor_flags else ""
        parts = [f"{self.cores} cores of {self.processor}{flags}", f"{self.memory_gibibytes} GiB of memory"]
        if self.gpus:
            parts.insert(0, f"{self.gpus} x {self.gpu}, CUDA {self.cuda}")
        else:
            parts.append(f"{self.threads} threads")
        return ", ".join([*parts, self.system, f"Python {self.python}", f"torch {self.torch}"])


def this_machine(device: str) -> Machine:
    """The machine that this is, for benchmarks on `device`."""
    on_gpu = device == "cuda"
    return Machine(
        processor=_cpu_field("model name") or platform.processor() or platform.machine(),
        processor_flags=[flag for flag in NOTED_CPU_FLAGS if flag in _cpu_field("flags").split()],
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        memory_gibibytes=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIBIBYTE),
        gpu=torch.cuda.get_device_name() if on_gpu else "",
        gpus=torch.cuda.device_count() if on_gpu else 0,
        system=f"{platform.system()} {platform.release().partition('-')[0]}",
        python=platform.python_version(),
        torch=str(torch.__version__),
        cuda=torch.version.cuda or "" if on_gpu else "",
    )


def _cpu_field(name: str) -> str:
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")
