"""What loading costs: contenders in turns, each in a process of its own that keeps its memory as the trainer's does.

Two in one process would disturb each other: DataLoader forks, and the fork of a process in which DALI has run threads
was seen to hang.
"""

from __future__ import annotations

import resource
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks.data.contenders import CONTENDERS, Contender, Task
from benchmarks.workers import Serving, Workers
from launch.processes import keep_freed_memory


@dataclass
class Cost:
    """The CPU and wall seconds of every turn, of the short run and of the long one."""

    short_cpu_seconds: list[float] = field(default_factory=list)
    long_cpu_seconds: list[float] = field(default_factory=list)
    short_seconds: list[float] = field(default_factory=list)
    long_seconds: list[float] = field(default_factory=list)

    def cpu_microseconds(self, images: int) -> float:
        """Per image, `images` being how many more the long run has."""
        return (min(self.long_cpu_seconds) - min(self.short_cpu_seconds)) / images * 1e6

    def images_per_second(self, images: int) -> float:
        """By the clock on the wall."""
        return images / (min(self.long_seconds) - min(self.short_seconds))


def costs(task: Task, *, turns: int, short: int, long: int) -> dict[str, Cost]:
    """The costs of every contender, turn by turn, after a short run each that loads what they need."""
    result = {name: Cost() for name in CONTENDERS}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Workers(name, loading, name, task)) for name in result}
        for worker in workers.values():
            worker.answers()
            worker.ask(short)
        for turn in range(turns):
            for name, cost in result.items():
                for batches, cpu_seconds, seconds in (
                    (short, cost.short_cpu_seconds, cost.short_seconds),
                    (long, cost.long_cpu_seconds, cost.long_seconds),
                ):
                    ((cpu, clock),) = workers[name].ask(batches)
                    cpu_seconds.append(cpu)
                    seconds.append(clock)
                further = cost.cpu_microseconds((long - short) * task.batch)
                print(f"turn {turn + 1}/{turns}  {name}: {further:.0f} us CPU an image so far", flush=True)
    return result


def loading(number: int, name: str, task: Task) -> Serving:
    """The life of a contender's process: answers a number of batches with what they took."""
    keep_freed_memory()
    batches = yield
    while True:
        batches = yield spent(CONTENDERS[name], task, batches)


def spent(contender: Contender, task: Task, batches: int) -> tuple[float, float]:
    """CPU and wall seconds of a run from its start to its end."""
    cpu, clock = used_cpu_seconds(), time.perf_counter()
    for batch in contender(task, batches):
        assert len(batch.images) == task.batch
    return used_cpu_seconds() - cpu, time.perf_counter() - clock


def used_cpu_seconds() -> float:
    """What this process and its ended children have used, in user and in system time."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
