"""Every augmentation alone: a contact sheet of it, and what it costs in CPU time per image.

    python -m benchmarks.augmentations --document docs/augmentation.md --picture docs/images/augmentations.png

The images are synthetic faces. CPU time is that of the whole process, over all its threads; the cost of one
augmentation is that of a loader with it less that of a loader without any, each the least of several turns, one after
another and round again, so that a busy machine disturbs all alike.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.arguments import parser
from benchmarks.documents import table, write_part
from benchmarks.plot_style import figure_at
from data_pipeline.augment.augmentation import CHANCES, Augmentation
from data_pipeline.formats.by_path import source_at
from data_pipeline.loader.image_loader import ImageFormat, ImageLoader
from data_pipeline.packing.synthetic import pack_synthetic
from data_pipeline.source import Source
from launch.figure_style import INK

PART = "costs"
SIDE, BATCH, COLUMNS = 112, 64, 7
RARE = 0.2
NOISE_MICROSECONDS = 30  # what the mirror, which normalising does for nothing, came out at on a busy machine
WARP = Augmentation(rotate_degrees=12, scale=0.1, shear=0.08, translate=0.08)
RARELY: dict[str, Any] = dict.fromkeys(("crop", "blur", "low_resolution", "jpeg", "erase"), RARE)
TOGETHER = replace(WARP, mirror=0.5, warp=0.5, colour=0.5, grey=0.1, **RARELY)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, measure, print, and write where asked to."""
    arguments = parser("augmentations", __doc__)
    arguments.add_argument("--picture", type=Path, help="where the contact sheet goes")
    arguments.add_argument("--document", type=Path, help="a Markdown file that holds the table between its two markers")
    arguments.add_argument("--turns", type=int, default=5)
    arguments.add_argument("--batches", type=int, default=20, help="per turn and case")
    chosen = arguments.parse_args(argv)
    with TemporaryDirectory() as folder:
        if chosen.picture:
            contact_sheet(drawn_faces(Path(folder) / "few", COLUMNS), chosen.picture)
        body = document_part(costs(drawn_faces(Path(folder) / "many", BATCH), chosen.turns, chosen.batches))
    print(body)
    if chosen.document:
        write_part(chosen.document, PART, body)


def drawn_faces(path: Path, people: int) -> Source:
    """One picture each of some synthetic people, in a new set at `path`."""
    pack_synthetic(path, identities=people, images=1, size=SIDE, workers=1)
    return source_at(path)


def alone(name: str, chance: float) -> Augmentation:
    """The augmentation of that name alone, at the strength it has by default."""
    chances: dict[str, Any] = {name: chance}
    return replace(WARP if name == "warp" else Augmentation(), **chances)


def loader(faces: Source, augmentation: Augmentation, batch: int) -> ImageLoader:
    """The loader of training, for one process."""
    form = ImageFormat(SIDE, SIDE, channels_last=True)
    return ImageLoader(faces, form, global_batch=batch, rank=0, size=1, seed=4, augmentation=augmentation)


def contact_sheet(faces: Source, path: Path) -> None:
    """A row for each augmentation, a column for each person; above all the pictures as they are, below all together."""
    rows = {"as stored": Augmentation(), **{name: alone(name, 1.0) for name in CHANCES}, "a training mix": TOGETHER}
    with figure_at(path, 1.05 * COLUMNS + 1.3, 1.05 * len(rows)) as figure:
        axes = figure.subplots(len(rows), COLUMNS, squeeze=False)
        for line, (name, augmentation) in zip(axes, rows.items(), strict=True):
            images = next(loader(faces, augmentation, COLUMNS)).images
            pictures = (images * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1).numpy()
            for each, picture in zip(line, pictures, strict=True):
                each.imshow(picture, interpolation="none")
                each.set(xticks=[], yticks=[])
                each.spines[:].set_visible(False)
            line[0].set_ylabel(name.replace("_", " "), rotation=0, ha="right", va="center", color=INK, fontsize=11)


def costs(faces: Source, turns: int, batches: int) -> dict[tuple[str, float], float]:
    """CPU microseconds per image that each augmentation adds, at chance 1 and at `RARE`; all of ("decoding", 1.0)."""
    plain = ("decoding", 1.0)
    cases = {plain: Augmentation(), **{(name, p): alone(name, p) for name in CHANCES for p in (1.0, RARE)}}
    found = [{case: _microseconds(loader(faces, cases[case], BATCH), batches) for case in cases} for _ in range(turns)]
    least = {case: min(turn[case] for turn in found) for case in cases}
    return {case: spent if case == plain else spent - least[plain] for case, spent in least.items()}


def _microseconds(batches: ImageLoader, count: int) -> float:
    """CPU time per image of the whole process. What is decoded ahead at the start is made good at the end."""
    list(islice(batches, 4))
    start = time.process_time()
    for _ in islice(batches, count):
        pass
    return (time.process_time() - start) / (count * BATCH) * 1e6


def document_part(found: dict[tuple[str, float], float]) -> str:
    """The costs as a Markdown table."""
    rows = []
    for name in CHANCES:
        always, rarely = found[name, 1.0], found[name, RARE]
        share = f"{100 * rarely / always:.0f} %" if always > 5 * NOISE_MICROSECONDS else "–"
        rows.append([name.replace("_", " "), _known(always), _known(rarely), share])
    plain = f"Decoding and normalising alone: {found['decoding', 1.0]:.0f} µs per image of {SIDE} x {SIDE}."
    return f"{table(['augmentation', 'at probability 1', f'at {RARE:g}', 'of it'], rows)}\n\n{plain}"


def _known(microseconds: float) -> str:
    return f"{microseconds:.0f}" if microseconds > NOISE_MICROSECONDS else f"< {NOISE_MICROSECONDS}"


if __name__ == "__main__":
    main()
