"""A folder where the commands of a page run, with something tiny and real at each place that they name."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import tiny

from data_pipeline.formats.verification_bin.writer import write_bin
from launch import cli

LANDMARKS = "60 70 110 72 88 100 66 130 108 128"  # eyes, nose, corners of a mouth
THEIR_CONFIG = """
from easydict import EasyDict as edict
config = edict()
config.margin_list = (1.0, 0.5, 0.0)
config.network = "r18"
config.embedding_size = 16
config.batch_size = 16
config.lr = 0.1
config.rec = "data/ms1m"
config.num_classes = 12
config.num_image = 96
config.num_epoch = 2
config.warmup_epoch = 0
"""


class Scratch:
    """A page's own folder. ``origin`` has what is made once: the sets ``train`` and ``heldout``, and a run of them."""

    def __init__(self, folder: Path, origin: Path) -> None:
        self.folder, self.origin = folder, origin

    def provide(self, name: str) -> bool:
        """Put something tiny at ``name``, unless it is there; False where no rule knows what a name like it means."""
        if (self.folder / name).exists():
            return True
        for pattern, make in RULES.items():
            if found := re.fullmatch(pattern, name):
                target = self.folder / (found["place"] if "place" in found.groupdict() else name)
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    make(self, target)
                return True
        return False


def _run(scratch: Scratch, target: Path) -> None:
    shutil.copytree(scratch.origin / "run", target, symlinks=True)
    (target / "checkpoints" / "best").symlink_to((target / "checkpoints" / "latest").readlink())


def _records(scratch: Scratch, target: Path) -> None:
    shutil.copytree(scratch.origin / "train", target)


def _photos(scratch: Scratch, target: Path) -> None:
    for identity in (0, 1):
        (target / str(identity)).mkdir(parents=True)
        for index in range(2):
            _picture(scratch, target / str(identity) / f"{index}.png")


def _picture(scratch: Scratch, target: Path) -> None:
    target.write_bytes(tiny.encoded(0, 0))


def _landmarks(scratch: Scratch, target: Path) -> None:
    target.write_text("".join(f"{identity}/{index}.png {LANDMARKS} 0.9\n" for identity in (0, 1) for index in (0, 1)))


def _pairs(scratch: Scratch, target: Path) -> None:
    first, second = ([tiny.encoded(identity, index) for identity in range(10)] for index in (0, 1))
    same, others = zip(first, second, strict=True), zip(first, second[1:] + second[:1], strict=True)
    write_bin(target, [image for pair in (*same, *others) for image in pair], [True] * 10 + [False] * 10)


def _omniglot(scratch: Scratch, target: Path) -> None:
    with ZipFile(target, "w") as archive:
        for identity in range(3):
            name = f"{target.stem}/Greek/character{identity + 1:02}/{identity + 1:04}"
            for index in range(2):
                archive.writestr(f"{name}_{index + 1:02}.png", tiny.encoded(identity, index))


def _theirs(scratch: Scratch, target: Path) -> None:
    assert cli.main(["checkpoint", "export", str(scratch.origin / "run"), "--out", str(target), "--ranks", "1"]) == 0


def _their_config(scratch: Scratch, target: Path) -> None:
    target.write_text(THEIR_CONFIG)


def _config(scratch: Scratch, target: Path) -> None:
    tiny.write_config(target, tiny.tree(scratch.origin, scratch.folder / "runs" / "mine"))


RULES: dict[str, Callable[[Scratch, Path], None]] = {  # the first that fits; `place` is what is made
    r"(?P<place>runs/\w+|RUN|RUN_DIR)(/.*)?": _run,
    r"work_dirs/\w+": _theirs,
    r".*\.py": _their_config,
    r"CONFIG|configs/\w+\.yaml|\w+\.yaml": _config,
    r".*\.(jpg|png)": _picture,
    r".*\.bin": _pairs,
    r".*\.zip": _omniglot,
    r"LANDMARKS": _landmarks,
    r"PHOTOS": _photos,
    r"(data|train_tmp)/[\w/]+|[A-Z]+(\.\.\.)?": _records,
}
