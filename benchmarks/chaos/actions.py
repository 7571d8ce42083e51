"""What happens at a place: to the process, to those around it, to the disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.chaos.faults import Fault, FaultFile
from partial_fc.checkpoint.layout import whole_checkpoints

RANK_MODULE = "benchmarks.chaos.rank"
_LARGEST_FILLED_BYTES = 1 << 30  # a larger disk is not meant to be filled
FILLER = "filler"


def kill(fault: Fault, file: FaultFile) -> None:
    """SIGKILL this rank."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_all(fault: Fault, file: FaultFile) -> None:
    """SIGKILL all ranks of this agent, this one last."""
    for pid in ranks_of(os.getppid()):
        if pid != os.getpid():
            os.kill(pid, signal.SIGKILL)
    kill(fault, file)


def kill_agent(fault: Fault, file: FaultFile) -> None:
    """SIGKILL the agent; its ranks live on."""
    os.kill(os.getppid(), signal.SIGKILL)


def terminate(fault: Fault, file: FaultFile) -> None:
    """SIGTERM this rank."""
    os.kill(os.getpid(), signal.SIGTERM)


def terminate_agent(fault: Fault, file: FaultFile) -> None:
    """SIGTERM the agent, as a scheduler does; it passes the signal on."""
    os.kill(os.getppid(), signal.SIGTERM)


def stop(fault: Fault, file: FaultFile) -> None:
    """SIGSTOP this rank, for so many seconds."""
    _later(fault.seconds, f"kill -CONT {os.getpid()}")
    os.kill(os.getpid(), signal.SIGSTOP)


def stop_for_good(fault: Fault, file: FaultFile) -> None:
    """SIGSTOP this rank; it is the others' watchdogs that notice."""
    os.kill(os.getpid(), signal.SIGSTOP)


def fill_disk(fault: Fault, file: FaultFile) -> None:
    """Fill the disk of the checkpoints for so many seconds. RuntimeError where it is not a small one."""
    filler = Path(file.checkpoints) / FILLER
    free = shutil.disk_usage(filler.parent).free
    if free > _LARGEST_FILLED_BYTES:
        raise RuntimeError(f"{filler.parent} has {free:,} free bytes: that disk is not to be filled")
    _later(fault.seconds, f"rm {filler}")
    with filler.open("wb") as handle:
        os.posix_fallocate(handle.fileno(), 0, free)


def tear(fault: Fault, file: FaultFile) -> None:
    """Cut the last whole checkpoint's largest file short, and SIGKILL this rank."""
    last = whole_checkpoints(Path(file.checkpoints))[-1]
    largest = max(last.path.iterdir(), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    kill(fault, file)


ACTIONS: dict[str, Callable[[Fault, FaultFile], None]] = {
    "kill": kill,
    "kill all": kill_all,
    "kill agent": kill_agent,
    "terminate": terminate,
    "terminate agent": terminate_agent,
    "stop": stop,
    "stop for good": stop_for_good,
    "fill disk": fill_disk,
    "tear": tear,
}


def ranks_of(agent: int) -> list[int]:
    """The processes that ``agent`` started as ranks."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == agent and RANK_MODULE.encode() in words:
            found.append(int(entry.name))
    return found


def _later(seconds: float, command: str) -> None:
    """Run a shell command after a while, by a process that no signal to this one reaches."""
    subprocess.Popen(["sh", "-c", f"sleep {seconds}; {command}"], start_new_session=True)
