"""Where the embeddings of a set grow, ``OUT.partial``, so that a command that was killed can be gone on with.

::

    origin.json         what is embedded, and by which network: no other set and no other network may go on here
    part-000000.npz     the embeddings of some thousand images in a row; it appears when it is whole
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from data_pipeline.files.whole_file import WholeFile
from data_pipeline.files.whole_folder import take_lock
from partial_fc import World
from partial_fc.inference.embedding_file import Origin, companions
from partial_fc.inference.model import Numbers


@dataclass(frozen=True)
class Work:
    """What must be equal for two commands to make the same rows; ``files`` and ``labels`` are digests of the set's."""

    origin: Origin
    files: str
    labels: str
    images_per_part: int
    form: int = 1  # of the folder: a new number whenever that changes

    def facts(self) -> dict[str, object]:
        """As JSON holds it; the place of the set is no part of it, as it may have been moved."""
        origin = {name: value for name, value in asdict(self.origin).items() if name not in ("images", "left_out")}
        return {**origin, **{name: value for name, value in asdict(self).items() if name != "origin"}}

    @property
    def num_parts(self) -> int:
        """How many parts there are; the last may be shorter than the others."""
        return -(-self.origin.num_images // self.images_per_part)

    def samples(self, part: int) -> range:
        """The images of a part."""
        first = part * self.images_per_part
        return range(first, min(first + self.images_per_part, self.origin.num_images))


class PartFolder:
    """The folder in which the rows of ``out`` grow."""

    def __init__(self, out: Path, work: Work) -> None:
        self.out, self.work = out, work
        self.path = out.with_name(f"{out.name}.partial")

    @contextmanager
    def held(self) -> Iterator[None]:
        """The folder, begun or gone on with, for one command at a time; rank 0 asks for it.

        FileExistsError where ``out`` is there already; ValueError where another work was begun here, which it names.
        """
        for file in (self.out, *companions(self.out).values()):
            if file.exists():
                raise FileExistsError(f"{file} exists and is never overwritten: remove it or choose another name")
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path, os.O_RDONLY)
        try:
            take_lock(lock, self.path)
            self._begin()
            yield
        finally:
            os.close(lock)

    def missing(self, world: World, device: torch.device) -> list[int]:
        """The parts that are still to be made, the same list on every rank.

        Talks: a number for each part, from ``device``, as NCCL takes nothing from a CPU.
        """
        mine = [world.rank == 0 and not self._file(part).exists() for part in range(self.work.num_parts)]
        return torch.nonzero(world.all_sum(torch.tensor(mine, dtype=torch.int64, device=device))).flatten().tolist()

    def keep(self, part: int, unit_nD: Numbers, bad: dict[int, str]) -> None:
        """Note the rows of a part, and which of its images cannot be used and why."""
        with WholeFile(self._file(part)) as file:
            np.savez(file, rows=unit_nD, bad=np.array([*bad], np.int64), reasons=np.array([*bad.values()], str))

    def read(self, part: int) -> tuple[Numbers, dict[int, str]]:
        """What :meth:`keep` noted. ValueError for a part that is missing or damaged."""
        try:
            with np.load(self._file(part), allow_pickle=False) as kept:
                return kept["rows"], dict(zip(kept["bad"].tolist(), kept["reasons"].tolist(), strict=True))
        except Exception as error:  # zipfile's and numpy's, of many classes
            raise ValueError(f"{self._file(part)} cannot be read ({error}): remove it, then go on") from error

    def remove(self) -> None:
        """Remove what ``out`` was made of."""
        shutil.rmtree(self.path)

    def _begin(self) -> None:
        file, facts = self.path / "origin.json", self.work.facts()
        if file.exists():
            begun = json.loads(file.read_text(encoding="utf-8"))
            differing = [name for name in facts if begun.get(name) != facts[name]]
            if differing:
                told = ", ".join(f"{name} was {begun.get(name)} and is {facts[name]}" for name in differing)
                raise ValueError(
                    f"{self.path} holds unfinished embeddings of another set or by another network or options "
                    f"({told}): give the same command again, or remove that folder to begin anew"
                )
        elif any(entry.suffix != ".partial" for entry in self.path.iterdir()):
            raise FileExistsError(f"{self.path} exists and holds no unfinished embeddings: choose another name")
        for partial in self.path.glob("*.partial"):  # of a process that was killed
            partial.unlink()
        if not file.exists():
            with WholeFile(file) as opened:
                opened.write(json.dumps(facts, indent=1).encode())

    def _file(self, part: int) -> Path:
        return self.path / f"part-{part:06d}.npz"
