"""The list of a run's metrics endpoints, as Prometheus reads it from a file (``file_sd_configs``)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from launch.config.run import ReportConfig
from launch.writing import write_text
from partial_fc import World
from partial_fc.world import local_rank

_EVERYWHERE = {"", "0.0.0.0", "::"}


@contextmanager
def listed_targets(path: Path, section: ReportConfig, port: int, world: World, device: torch.device) -> Iterator[None]:
    """While the block runs, rank 0 keeps the endpoints of all ranks in ``path``: node, rank and local rank as labels.

    The list is removed at a clean end alone: a run that failed is to be found down, and one that is started again
    writes the list anew. ``port`` is this rank's. One all-gather of some bytes, and one of a number.
    """
    node = socket.gethostname()
    host = node if section.address in _EVERYWHERE else section.address
    labels = {"node": node, "rank": str(world.rank), "local_rank": str(local_rank())}
    if section.tls is not None:
        labels["__scheme__"] = "https"
    own = {"targets": [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"], "labels": labels}
    lines = _text(world.gather_rows(_numbers(json.dumps(own) + "\n", device))).splitlines()
    if world.rank != 0:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")  # Prometheus looks for names that end in .json
    write_text(partial, json.dumps([json.loads(line) for line in lines], indent=1) + "\n")
    os.replace(partial, path)
    yield
    path.unlink(missing_ok=True)


def _numbers(text: str, device: torch.device) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8, device=device)


def _text(numbers: Tensor) -> str:
    return bytes(numbers.tolist()).decode()
