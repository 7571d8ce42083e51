"""Every augmentation alone: a contact sheet of it, and what it costs in CPU time per image.

    python -m benchmarks.augmentations --document docs/augmentation.md --picture docs/images/augmentations.png

The images are synthetic faces as JPEG in memory. CPU time is that of the whole process, over all its threads; the cost
of one augmentation is that of a loader with it less that of a loader without any, each the least of several turns, one
after another and round again, so that a busy machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.documents import write_part
from benchmarks.plot_style import figure_at
from data_pipeline.augment.augmentation import Augmentation
from data_pipeline.loader.image_loader import ImageFormat, ImageLoader
from data_pipeline.source import Source
from data_pipeline.synthetic.people import identity_image
from launch.figure_style import INK

PART = "costs"
SIDE, PEOPLE, BATCH, COLUMNS = 112, 64, 64, 7
SEED = 4
RARE = 0.2
NOISE_MICROSECONDS = 30  # what the mirror, which normalising does for nothing, came out at on a busy machine
WARP = Augmentation(rotate_degrees=12, scale=0.1, shear=0.08, translate=0.08)
ALONE = {
    "mirror": Augmentation(mirror=1.0),
    "crop": Augmentation(crop=1.0),
    "warp": WARP,
    "colour": Augmentation(colour=1.0),
    "grey": Augmentation(grey=1.0),
    "blur": Augmentation(blur=1.0),
    "low_resolution": Augmentation(low_resolution=1.0),
    "jpeg": Augmentation(jpeg=1.0),
    "erase": Augmentation(erase=1.0),
}
TOGETHER = replace(
    WARP, mirror=0.5, crop=RARE, warp=0.5, colour=0.5, grey=0.1, blur=RARE, low_resolution=RARE, jpeg=RARE, erase=RARE
)


class Faces(Source):
    """One picture each of some synthetic people, as JPEG in memory."""

    def __init__(self, side: int, people: int = PEOPLE) -> None:
        self.labels = np.arange(people)
        self._files = [_jpeg(identity_image(person, 0, size=side)) for person in range(people)]

    def read(self, sample: int) -> NDArray[np.uint8]:
        return self._files[sample]


def _jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95)
    return np.frombuffer(file.getvalue(), np.uint8)


def loader(source: Faces, augmentation: Augmentation, side: int, batch: int) -> ImageLoader:
    form = ImageFormat(side, side, channels_last=True)
    return ImageLoader(source, form, global_batch=batch, rank=0, size=1, seed=SEED, augmentation=augmentation)


def at_chance(name: str, chance: float) -> Augmentation:
    """The augmentation of that name alone, at the strength it has by default."""
    chances: dict[str, Any] = {name: chance}
    return replace(ALONE[name], **chances)


def contact_sheet(path: Path) -> None:
    """A row for each augmentation, a column for each person; above all the pictures as they are, below all together."""
    faces = Faces(SIDE, COLUMNS)
    rows = {"as stored": Augmentation(), **ALONE, "a training mix": TOGETHER}
    with figure_at(path, 1.05 * COLUMNS + 1.3, 1.05 * len(rows)) as figure:
        axes = figure.subplots(len(rows), COLUMNS, squeeze=False)
        for line, (name, augmentation) in zip(axes, rows.items(), strict=True):
            batch = next(loader(faces, augmentation, SIDE, COLUMNS))
            pictures = (batch.images * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1).numpy()
            for person, picture in zip(batch.labels.tolist(), pictures, strict=True):
                line[person].imshow(picture, interpolation="none")
                line[person].set(xticks=[], yticks=[])
                line[person].spines[:].set_visible(False)
            line[0].set_ylabel(name.replace("_", " "), rotation=0, ha="right", va="center", color=INK, fontsize=11)


def costs(turns: int, batches: int) -> dict[str, dict[float, float]]:
    """CPU microseconds per image that each augmentation adds, at chance 1 and at `RARE`; and all of "decoding"."""
    faces = Faces(SIDE)
    cases = {(name, chance): at_chance(name, chance) for name in ALONE for chance in (1.0, RARE)}
    plain = ("decoding", 1.0)
    least: dict[tuple[str, float], float] = {}
    for _ in range(turns):
        for case, augmentation in {plain: Augmentation(), **cases}.items():
            spent = _microseconds(loader(faces, augmentation, SIDE, BATCH), batches)
            least[case] = min(spent, least.get(case, spent))
    table: dict[str, dict[float, float]] = {"decoding": {1.0: least[plain]}}
    for name, chance in cases:
        table.setdefault(name, {})[chance] = least[name, chance] - least[plain]
    return table


def _microseconds(batches: ImageLoader, count: int) -> float:
    """CPU time per image of the whole process. What is decoded ahead at the start is made good at the end."""
    list(islice(batches, 4))
    start = time.process_time()
    for _ in islice(batches, count):
        pass
    return (time.process_time() - start) / (count * BATCH) * 1e6


def rows(table: dict[str, dict[float, float]]) -> str:
    """The costs as a Markdown table."""
    lines = [f"| augmentation | at probability 1 | at {RARE:g} | of it |", "| --- | ---: | ---: | ---: |"]
    for name, found in table.items():
        if name in ALONE:
            whole = found[1.0] > 5 * NOISE_MICROSECONDS
            share = f"{found[RARE] / found[1.0]:.0%}".replace("%", " %") if whole else "–"
            lines.append(f"| {name.replace('_', ' ')} | {_known(found[1.0])} | {_known(found[RARE])} | {share} |")
    plain = f"Decoding and normalising alone: {table['decoding'][1.0]:.0f} µs per image of {SIDE} x {SIDE}."
    return "\n".join([*lines, "", plain])


def _known(microseconds: float) -> str:
    return f"{microseconds:.0f}" if microseconds > NOISE_MICROSECONDS else f"< {NOISE_MICROSECONDS}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="where the contact sheet goes")
    parser.add_argument("--document", type=Path, help="a Markdown file that holds the table between its two markers")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--batches", type=int, default=20, help="per turn and case")
    chosen = parser.parse_args(arguments)
    if chosen.picture:
        contact_sheet(chosen.picture)
    body = rows(costs(chosen.turns, chosen.batches))
    print(body)
    if chosen.document:
        write_part(chosen.document, PART, body)


assert set(ALONE) <= {field.name for field in fields(Augmentation)}

if __name__ == "__main__":
    main()
