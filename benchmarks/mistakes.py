"""What several trained networks together still mistake: how much of the error is the networks', how much the images'.

    python -m benchmarks.mistakes runs/one runs/two --data data/omniglot/evaluation --picture mistakes.png

The embeddings of networks of different size, loss and seed are joined to one long embedding, which averages their
cosines. What is one network's own mistake goes away so; what stays is mistaken by all. The picture shows the pairs of
identities that are mistaken for each other most often, some images of the one beside some of the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.arguments import parser
from benchmarks.documents import table
from data_pipeline.checking.contact_sheet import GAP_PIXELS, PAPER, Row, strip
from data_pipeline.source import Source
from launch import assembly
from launch.assembly.run_folder import RunFolder
from launch.config.loading import load_config
from launch.evaluation.embeddings import embeddings
from launch.evaluation.held_out import HeldOut
from partial_fc import World
from partial_fc.checkpoint.layout import latest_checkpoint
from partial_fc.functional.cosine import blocks
from partial_fc.world import local_device

SHOWN_PAIRS, SHOWN_IMAGES = 24, 8
PALETTE = 16
MOST_MISTAKEN = (10, 25, 50, 100)
ROWS_AT_ONCE = 1024

Mistakes = Counter[tuple[int, int]]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, draw the picture where one is asked for, and return 0."""
    options = parser("mistakes", __doc__)
    options.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN_DIR", help="config.yaml and checkpoints/")
    options.add_argument("--data", type=Path, required=True, help="the held-out set")
    options.add_argument("--picture", type=Path, help="a PNG of the pairs of identities mistaken most often")
    arguments = options.parse_args(argv)
    source = assembly.open_held_out(arguments.data)
    labels_N = torch.from_numpy(np.asarray(source.labels, dtype=np.int64))
    embedded = {str(run_dir): unit_embeddings(run_dir, source) for run_dir in arguments.run_dirs}
    embedded["all of them joined"] = normalize(torch.cat([*embedded.values()], dim=1))
    found = {name: mistakes(unit_ND, labels_N) for name, unit_ND in embedded.items()}
    counts = {name: counter.total() for name, counter in found.items()}
    rows = [[name, f"{1 - count / len(labels_N):.4f}", f"{count:,}"] for name, count in counts.items()]
    print(table(["embedding", "rank-1", "mistaken"], rows))
    *_, joint = found.values()
    print(spread(joint))
    if arguments.picture is not None and joint:
        pairs = [pair for pair, _ in joint.most_common(SHOWN_PAIRS)]
        picture(source, pairs).reduce(2).quantize(PALETTE).save(arguments.picture, optimize=True)
        print(f"{arguments.picture}  the {len(pairs)} pairs mistaken most often")
    return 0


def unit_embeddings(run_dir: Path, source: Source) -> Tensor:
    """The unit rows `(N, D)`, float32, that the last checkpoint of a run gives the images of `source`."""
    folder, device = RunFolder(run_dir), local_device()
    config, weights = load_config(folder.config), latest_checkpoint(folder.checkpoints)
    backbone = assembly.backbone(config.backbone, config.data.image_size, weights).to(device)
    held_out = HeldOut(source, np.empty(0, np.int64))
    return embeddings(config, backbone, held_out, World(), device, flip=False).unit_ND.float().cpu()


def mistakes(unit_ND: Tensor, labels_N: Tensor) -> Mistakes:
    """How many images have their nearest other image in another identity, by the (unordered) pair of identities."""
    nearest_N = torch.cat([nearest_others(unit_ND, rows) for rows in blocks(len(unit_ND), ROWS_AT_ONCE)])
    pairs = zip(labels_N.tolist(), labels_N[nearest_N].tolist(), strict=True)
    return Counter((min(pair), max(pair)) for pair in pairs if pair[0] != pair[1])


def nearest_others(unit_ND: Tensor, rows: slice) -> Tensor:
    """For each of the rows which other row of all has the highest cosine, by number."""
    cos_nN = unit_ND[rows] @ unit_ND.T
    cos_nN[:, rows].fill_diagonal_(-torch.inf)
    return cos_nN.argmax(dim=1)


def spread(found: Mistakes) -> str:
    """A sentence on how few pairs of identities hold how much of the mistakes."""
    if not found:
        return "no mistakes"
    by_size = np.cumsum([count for _, count in found.most_common()])
    shares = [f"{by_size[few - 1] / by_size[-1]:.0%} in {few}" for few in MOST_MISTAKEN if few <= len(by_size)]
    return f"{by_size[-1]:,} mistakes in {len(found):,} pairs of identities: {', '.join(shares)}"


def picture(source: Source, pairs: Sequence[tuple[int, int]]) -> Image.Image:
    """A row for each pair of identities: some images of the one, a gap, some of the other."""
    samples = {label: np.flatnonzero(source.labels == label) for pair in pairs for label in pair}
    rows = [
        [strip(source, Row(label, samples[label].size, samples[label][:SHOWN_IMAGES].tolist())) for label in pair]
        for pair in pairs
    ]
    gap, step = 6 * GAP_PIXELS, rows[0][0].height + GAP_PIXELS
    width = max(first.width + gap + second.width for first, second in rows)
    drawn = Image.new("RGB", (width, step * len(rows) - GAP_PIXELS), PAPER)
    for place, (first, second) in enumerate(rows):
        drawn.paste(first, (0, place * step))
        drawn.paste(second, (first.width + gap, place * step))
    return drawn


if __name__ == "__main__":
    raise SystemExit(main())
