"""Before anything is written: whether all ranks mean the same run, and what of their machines gets in its way.

On many nodes each rank has files, packages and a clock of its own. Ranks that differ would train, and what comes out
would be no one's run: so they compare what they have, in one all-gather of some numbers, and stop with what differs.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import torch

import partial_fc
from launch.assembly.run_folder import RunFolder
from launch.config.loading import ConfigError
from partial_fc import World

MOST_SECONDS_APART = 30.0
PATIENCE_SECONDS = 60.0  # until a file of another node is seen
SHARED_MEMORY = Path("/dev/shm")
NETWORK_BYTES = 64 << 20  # of all ranks together, to try the network with
LEAST_SAMPLE_BYTES, MOST_SAMPLE_BYTES = 1 << 20, 8 << 20  # of one of them
LEAST_MEGABYTES_PER_SECOND = 200.0  # two wires of 1 Gbit/s
LEAST_SHARED_BYTES = 256 << 20  # of a rank on a GPU; containers have 64 MiB in all unless told otherwise


def agree(world: World, folder: RunFolder, facts: dict[str, Any], device: torch.device) -> None:
    """Compare with the other ranks what ``facts`` (configuration, images), versions and the run folder are.

    ConfigError, on all ranks, with the ranks that differ from rank 0, and what this rank has. Rank 0 says it where the
    ranks' clocks are half a minute apart. One all-gather of some numbers. Rank 0 holds the lock of ``folder``.
    """
    own = _compared(facts) | {"run folder": "seen" if appears(folder.lock, folder.path) else "not seen"}
    numbers = torch.tensor([*map(_number, own.values()), time.time_ns()], device=device)
    of_ranks = world.all_gather(numbers)
    for place, (name, value) in enumerate(own.items()):
        if others := torch.nonzero(of_ranks[:, place] != of_ranks[0, place]).flatten().tolist():
            ranks = f"rank {others[0]}" if len(others) == 1 else f"ranks {', '.join(map(str, others))}"
            raise ConfigError(f"{ranks} and rank 0 differ: {name}. {_CURES[name]} Here, rank {world.rank}: {value}")
    apart_seconds = float(of_ranks[:, -1].max() - of_ranks[:, -1].min()) / 1e9
    if world.rank == 0 and apart_seconds > MOST_SECONDS_APART:
        print(
            f"the clocks of the ranks are {apart_seconds:,.0f} s apart: times in logs and metrics will not match; set "
            "them by NTP",
            flush=True,
        )


def shared_memory_shortage(ranks_here: int, device: torch.device) -> str | None:
    """What to say where ranks on this machine's GPUs have little shared memory to meet in; None where it is enough."""
    if device.type != "cuda" or ranks_here == 1 or not SHARED_MEMORY.is_dir():
        return None
    free, needed = shutil.disk_usage(SHARED_MEMORY).free, ranks_here * LEAST_SHARED_BYTES
    if free >= needed:
        return None
    return (
        f"{SHARED_MEMORY} has {free >> 20:,} MiB free, and {ranks_here} ranks meet there: NCCL may fail. Give a "
        "container more: docker run --shm-size=4g, or in Kubernetes an emptyDir of medium Memory at /dev/shm"
    )


def slow_network(world: World, ranks_here: int, device: torch.device) -> str | None:
    """What to say where the nodes exchange less than 200 MB/s; None where that is enough, and on one node.

    Two all-gathers: the first, of a few numbers, connects the ranks; the second is of 64 MiB in all, but of 1 to
    8 MiB a rank.
    """
    if world.size <= ranks_here:
        return None
    sample_bytes = min(max(NETWORK_BYTES // world.size, LEAST_SAMPLE_BYTES), MOST_SAMPLE_BYTES)
    sample = torch.zeros(sample_bytes, dtype=torch.uint8, device=device)
    world.all_gather(sample[:16])[-1, -1].item()  # else a device would still be connecting when the clock starts
    began = time.perf_counter()
    world.all_gather(sample)[-1, -1].item()  # which waits for the device
    seconds = time.perf_counter() - began
    rate = (world.size - ranks_here) * sample_bytes / 1e6 / seconds
    if rate >= LEAST_MEGABYTES_PER_SECOND:
        return None
    name = "NCCL_SOCKET_IFNAME" if device.type == "cuda" else "GLOO_SOCKET_IFNAME"
    return (
        f"the nodes exchange {rate:,.0f} MB/s: training will wait for the network. Where they have a faster one, name "
        f"it in the environment of each node: {name}=eth1"
    )


_CURES = {
    "configuration": "Start every rank with the same file and the same --set, in folders of the same name.",
    "images": "data.train must hold the same files on every node.",
    "identities": "data.train must hold the same files on every node.",
    "version of partial_fc": "Install the same one on every node.",
    "version of torch": "Install the same one on every node.",
    "version of Python": "Install the same one on every node.",
    "run folder": "run_dir must lie on a file system that all nodes share, under one path.",
}


def _compared(facts: dict[str, Any]) -> dict[str, str]:
    """What must be the same on every rank, as text."""
    config = json.dumps(_of_all_nodes(facts["config"]), sort_keys=True, default=str)
    return {
        "configuration": f"{hashlib.sha256(config.encode()).hexdigest()[:12]} of run_dir {facts['config']['run_dir']}",
        "images": f"{facts['data']['num_images']:,} images, {facts['data']['fingerprint']}",
        "identities": f"{facts['data']['num_classes']:,} identities, {facts['data']['identities']}",
        "version of partial_fc": partial_fc.__version__,
        "version of torch": torch.__version__.partition("+")[0],
        "version of Python": ".".join(platform.python_version_tuple()[:2]),
    }


def _of_all_nodes(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without what may be each node's own: where its copy of the images lies, threads, endpoints."""
    data = {key: value for key, value in config["data"].items() if key not in ("train", "decode_threads")}
    data["evaluate"] = data.get("evaluate") is not None
    report = {key: value for key, value in config["report"].items() if key not in ("address", "port", "tls")}
    evaluation = dict(config.get("evaluation", {}))
    evaluation["sets"] = len(evaluation.get("sets", ()))
    return {**config, "data": data, "report": report, "evaluation": evaluation}


def appears(file: Path, folder: Path) -> bool:
    """Whether this rank comes to see ``file`` of rank 0, in or below ``folder``.

    A network's file system may take a while to show it.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while not file.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
        if folder.is_dir():
            os.listdir(folder)  # which asks the file system anew
    return True


def _number(text: str) -> int:
    """63 bits of a digest: what ranks compare."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()) >> 1
