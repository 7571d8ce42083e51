"""Draw the pictures of docs/concepts.md and the pages below it.

    python -m benchmarks.concepts

Every number is made anew by the code that the pages explain, but for one: what a trained network's cosines are, which
`--run RUN` measures and `trained.json` keeps (see `trained.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from benchmarks.arguments import parser
from benchmarks.concepts import blocks, contract, gram, head, lives, near, trained
from benchmarks.concepts.drawing import SMALL_INCHES, WIDTH_INCHES
from benchmarks.documents import DOCS
from benchmarks.plot_style import figure_at

FOLDER = DOCS / "images" / "concepts"


class Picture(NamedTuple):
    """How a picture is drawn, and how large it is."""

    draw: Callable[[Figure], None]
    height_inches: float
    width_inches: float = WIDTH_INCHES


PICTURES = {
    "head": Picture(head.draw_head, 4.3),
    "head_bytes": Picture(head.draw_traffic, 4.6),
    "sweep": Picture(blocks.draw_sweep, 2.9),
    "block_memory": Picture(blocks.draw_memory, 3.2),
    "gram": Picture(gram.draw_gram, 3.4),
    "near_cosines": Picture(near.draw_cosines, 4.8),
    "near_look": Picture(near.draw_look, 3.8),
    "near_counts": Picture(near.draw_counts, 2.9),
    "contract": Picture(contract.draw_contract, 2.8),
    "life_of_a_batch": Picture(lives.draw_batch, lives.height_inches(lives.BATCH)),
    "life_of_a_label": Picture(lives.draw_label, lives.height_inches(lives.LABEL)),
    "life_of_a_class_row": Picture(lives.draw_row, lives.height_inches(lives.ROW)),
    "life_of_a_run": Picture(lives.draw_run, lives.height_inches(lives.RUN)),
    "small_head": Picture(head.draw_small_head, 2.3, SMALL_INCHES),
    "small_blocks": Picture(blocks.draw_small_memory, 2.3, SMALL_INCHES),
    "small_gram": Picture(gram.draw_small_gram, 2.3, SMALL_INCHES),
    "small_near": Picture(near.draw_small_cosines, 2.3, SMALL_INCHES),
    "small_contract": Picture(contract.draw_small_contract, 2.0, SMALL_INCHES),
    "small_lives": Picture(lives.draw_small_lives, 1.7, SMALL_INCHES),
}


def draw_all(folder: Path, names: Sequence[str] = ()) -> None:
    """Draw the pictures of these names, or all, into `folder`."""
    for name in names or PICTURES:
        picture = PICTURES[name]
        with figure_at(folder / f"{name}.svg", picture.width_inches, picture.height_inches) as figure:
            picture.draw(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the trained network if a run is given, and draw."""
    arguments = parser("concepts", __doc__)
    arguments.add_argument("--run", type=Path, help="the folder of a run on one rank: its cosines are measured first")
    arguments.add_argument("--out", type=Path, default=FOLDER, help="where the pictures go (default: %(default)s)")
    arguments.add_argument(
        "--only", nargs="+", choices=PICTURES, metavar="NAME", default=(), help="these pictures only"
    )
    asked = arguments.parse_args(argv)
    if asked.run is not None:
        trained.keep(trained.measure(asked.run))
    draw_all(asked.out, asked.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
