"""A data set, a config and a command so small that a whole run takes seconds: what the tests of the trainer share."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from ports import free_port
from torch import nn

from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.source import Source
from data_pipeline.synthetic.people import identity_image
from launch import assembly
from launch.config.run import Config

IMAGES_PER_IDENTITY = 8
TRAINED, HELD_OUT = range(12), range(100, 110)
SIZE = 24
Tree = dict[str, Any]


def write_records(path_rec: Path, identities: range, *, damaged: Collection[int] = ()) -> Path:
    """A real ``.rec`` of drawn people; labels count from 0. The images ``damaged`` end after 20 bytes."""
    path_rec.parent.mkdir(parents=True, exist_ok=True)
    with RecordWriter(path_rec) as writer:
        for sample in range(len(identities) * IMAGES_PER_IDENTITY):
            label, index = divmod(sample, IMAGES_PER_IDENTITY)
            writer.append(label, encoded(identities[label], index)[: 20 if sample in damaged else None])
    return path_rec


def encoded(identity: int, index: int) -> bytes:
    """A drawn picture of a person, as PNG."""
    content = io.BytesIO()
    Image.fromarray(identity_image(identity, index, size=SIZE)).save(content, "png")
    return content.getvalue()


def write_data(folder: Path) -> Path:
    """``folder`` with the sets ``train`` and ``heldout`` in it."""
    write_records(folder / "train" / "train.rec", TRAINED)
    write_records(folder / "heldout" / "train.rec", HELD_OUT)
    return folder


def tree(data: Path, run_dir: Path, /, **sections: Tree | str | int) -> Tree:
    """A config as YAML would say it; ``sections`` are laid over it key by key."""
    made: Tree = {
        "run_dir": str(run_dir),
        "data": {
            "train": str(data / "train"),
            "evaluate": str(data / "heldout"),
            "image_size": SIZE,
            "augmentation": {"mirror": 0.0},
        },
        "backbone": {"name": "r18", "width": 8, "embedding_dim": 16, "compile": False, "autocast": "float32"},
        "optimizer": {"learning_rate": 0.05},
        "schedule": {"epochs": 1, "batch_size": 16, "warmup_epochs": 0.2},
        "report": {"every_steps": 2, "prometheus": False},
    }
    for name, section in sections.items():
        made[name] = {**made.get(name, {}), **section} if isinstance(section, dict) else section
    return made


def write_config(path: Path, content: Tree) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def training_data(config: Config) -> Source:
    """The training set of ``config``."""
    return assembly.open_training_data(config.data, config.seed)


def backbone(config: Config, weights: Path | None = None) -> nn.Module:
    """The backbone of ``config``."""
    return assembly.backbone(config.backbone, config.data.image_size, weights)


def environment() -> dict[str, str]:
    """For the processes of a test: one thread each, and none of this process' own rank."""
    ours = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    return {**ours, "OMP_NUM_THREADS": "1"}


def command(*words: object) -> list[str]:
    """The real command ``partial-fc``, by the Python that runs the tests."""
    return [sys.executable, "-m", "launch.cli", *map(str, words)]


def partial_fc(*words: object) -> subprocess.CompletedProcess[str]:
    """The real command, to its end."""
    return subprocess.run(command(*words), env=environment(), capture_output=True, text=True, timeout=120, check=False)


def processes(size: int, work: Callable[..., None], *arguments: object) -> None:
    """``work(*arguments)`` in ``size`` processes that see what ``torchrun`` tells its ranks; the first error is raised.

    They fork from a server that has imported the trainer and started no thread: an import each would cost seconds.
    """
    port = free_port()
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["launch.train"])
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call, attr-defined]
        _process, args=(size, port, work, arguments), nprocs=size, start_method="forkserver"
    )


def _process(rank: int, size: int, port: int, work: Callable[..., None], arguments: Sequence[object]) -> None:
    torch.set_num_threads(1)
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "CUDA_VISIBLE_DEVICES": "", **rendezvous}
    os.environ.update({name: str(value) for name, value in told.items()})
    work(*arguments)
