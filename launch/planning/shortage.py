"""Whether a run will find the memory that its plan asks for, looked at before the first step."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import torch

from launch.config.run import Config
from launch.planning.forecast import planner
from launch.units import bytes_text
from partial_fc.planning.rates import H100

_LARGEST_NETWORK_BYTES = 10 << 30  # weights, gradients and momentum of vit_h
_LARGEST_BLOCKS_BYTES = 4 << 30  # of cosines, one at a time and kept
_KEPT_FREE = 0.9  # of the host's free memory; the rest is for what is not planned, images on their way above all
_MOST_BYTES_A_VALUE = 1000  # for each pixel and channel of the first stage: r50 takes 45 of them, r200 140
_MOST_BYTES_A_ROW_VALUE = 32
_CGROUP = Path("/sys/fs/cgroup")


def memory_shortage(config: Config, num_classes: int, device: torch.device, ranks: int, ranks_here: int) -> str | None:
    """What to say where a run is planned to need more memory than is free; None where there is enough.

    ``ranks_here`` of all ``ranks`` share this machine's memory where they run on its CPU; a GPU is one rank's.
    """
    shared_by, free = ranks_here if device.type == "cpu" else 1, free_bytes(device)
    if shared_by * (_LARGEST_NETWORK_BYTES + _ceiling(config, num_classes, ranks)) <= free:
        return None
    made = planner(config, num_classes, device.type, H100, memory=1, reserve=0)
    parts = made.rank_bytes(ranks, config.schedule.batch_size)
    if device.type == "cpu" and config.checkpoint.in_background is True:
        parts["the copy that a save makes"] = made.save_cost(ranks).rank_bytes
    needed = shared_by * sum(parts.values())
    if needed <= free:
        return None
    largest = max(parts, key=lambda part: parts[part])
    return (
        f"this run is planned to need {bytes_text(needed)} of memory here, most of it for {largest}, and "
        f"{bytes_text(free)} are free. It goes on; where it fails, make schedule.batch_size smaller, set "
        "backbone.checkpoint_activations, or use more ranks: partial-fc plan says what each needs"
    )


def has_room_for_copies(
    config: Config, num_classes: int, device: torch.device, ranks: int, ranks_here: int, copy_bytes: int
) -> bool:
    """Whether ``copy_bytes`` for a save are free on the host of this rank beside what a step will take, weights there.

    ``checkpoint.in_background`` decides where it is not ``auto``. ``ranks_here`` share the host. Half a second of
    planning on CPUs, where memory could be short.
    """
    if config.checkpoint.in_background != "auto":
        return config.checkpoint.in_background
    free = _KEPT_FREE * free_bytes(torch.device("cpu"))
    if device.type != "cpu":
        return ranks_here * copy_bytes <= free
    # Rank 0, which copies the backbone's weights and state too, knows by them how large gradients and state will be.
    if ranks_here * (3 * copy_bytes + _LARGEST_BLOCKS_BYTES + _ceiling(config, num_classes, ranks)) <= free:
        return True
    made = planner(config, num_classes, device.type, H100, memory=1, reserve=0)
    parts = made.rank_bytes(ranks, config.schedule.batch_size)
    to_come = sum(size for part, size in parts.items() if part not in ("class rows", "backbone weights"))
    return ranks_here * (copy_bytes + to_come) <= free


def _ceiling(config: Config, num_classes: int, ranks: int) -> int:
    """More than activations and rows need on a rank: a small run begins without half a second of planning."""
    values = -(-config.schedule.batch_size // ranks) * config.data.image_size**2 * config.backbone.width
    rows = -(-num_classes // ranks) * config.backbone.embedding_dim
    return values * _MOST_BYTES_A_VALUE + rows * _MOST_BYTES_A_ROW_VALUE


def free_bytes(device: torch.device) -> int:
    """The memory that ``device`` can still give, as far as the system says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_limits(), default=1 << 62)


def _limits() -> Iterator[int]:
    """What is free of the machine, of the container and of what a process may have."""
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) << 10
    for most, used in zip(_lines(_CGROUP / "memory.max"), _lines(_CGROUP / "memory.current"), strict=False):
        if most.isdecimal():
            yield int(most) - int(used) + _cache_bytes()
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        yield address_space


def _cache_bytes() -> int:
    """What the container holds of files that were read, and gives back when it needs memory."""
    parts = dict(line.split(maxsplit=1) for line in _lines(_CGROUP / "memory.stat"))
    return sum(int(parts.get(name, 0)) for name in ("active_file", "inactive_file"))


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
