"""What the protocols cost after the embeddings: IJB-C's 15.7 million pairs, and probes among distractors.

    python -m benchmarks.protocols                                   # IJB-C's sizes; 512 probes among 100,000
    python -m benchmarks.protocols --device cuda --probes 3530 --distractors 1000000

On random embeddings of 512 dimensions. The pairs lie in a file as IJB-C has it, which is read as well; its lines are
in the order of their first template. Each part says its seconds and the memory that it took beyond its embeddings.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from benchmarks.arguments import parser
from benchmarks.machine import this_machine
from benchmarks.memory import peak_memory
from launch.protocols.ijb_files import pair_chunks
from partial_fc import World
from partial_fc.functional.templates import Templates, pooled_templates
from partial_fc.protocols.distractors import among_distractors
from partial_fc.protocols.templates import PairChunk, verify_templates

DIM, MEDIA_OF_TEMPLATE = 512, 6


def main(argv: Sequence[str] | None = None) -> int:
    options = parser("protocols", __doc__)
    options.add_argument("--device", default="cpu")
    options.add_argument("--pictures", type=int, default=469_375)
    options.add_argument("--templates", type=int, default=23_124)
    options.add_argument("--pairs", type=int, default=15_658_489)
    options.add_argument("--probes", type=int, default=512)
    options.add_argument("--distractors", type=int, default=100_000)
    chosen = options.parse_args(argv)
    print(this_machine(chosen.device).description)
    with TemporaryDirectory() as folder:
        write_pairs(Path(folder) / "pairs.txt", chosen.templates, chosen.pairs)
        templates = time_pooling(chosen)
        time_pairs(chosen, templates, Path(folder) / "pairs.txt")
    time_distractors(chosen)
    return 0


def write_pairs(path: Path, templates: int, pairs: int) -> None:
    """A list of pairs, one in 800 of one person, as in IJB-C."""
    random = np.random.default_rng(0)
    first, second = np.sort(random.integers(templates, size=pairs)), random.integers(templates, size=pairs)
    with path.open("w") as file:
        for some in np.array_split(np.arange(pairs), max(pairs // 1_000_000, 1)):
            rows = zip(first[some].tolist(), second[some].tolist(), (some % 800 == 0).tolist(), strict=True)
            file.writelines(f"{a} {b} {int(same)}\n" for a, b, same in rows)


def measured(what: str, device: str, work: Callable[[], Templates | None]) -> Templates | None:
    gauge = peak_memory(torch.device(device))
    before, began = gauge.now_bytes(), time.perf_counter()
    gauge.begin()
    found = work()
    if device != "cpu":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    print(f"{what}: {seconds:.1f} s, {(gauge.peak_bytes() - before) / 2**30:.2f} GiB", flush=True)
    return found


def some_rows(rows: int, device: str, seed: int) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, DIM, generator=generator, device=device), dim=1)


def time_pooling(chosen: argparse.Namespace) -> Templates:
    rows_ND = some_rows(chosen.pictures, chosen.device, 0)
    medium_N = torch.arange(chosen.pictures, device=chosen.device) % (MEDIA_OF_TEMPLATE * chosen.templates)
    norm_N = 20 + torch.rand(chosen.pictures, device=chosen.device)
    what = f"{chosen.pictures:,} pictures pooled into {chosen.templates:,} templates"
    found = measured(
        what, chosen.device, lambda: pooled_templates(rows_ND, medium_N % chosen.templates, medium_N, norm_N)
    )
    assert found is not None
    return found


def time_pairs(chosen: argparse.Namespace, templates: Templates, path: Path) -> None:
    def chunks() -> Iterator[PairChunk]:
        for first, second, same in pair_chunks(path):
            rows = [templates.rows_of(torch.tensor(each, device=chosen.device)) for each in (first, second)]
            yield rows[0], rows[1], torch.tensor(same, device=chosen.device)

    what = f"1:1, {chosen.pairs:,} pairs read and scored"
    measured(what, chosen.device, lambda: void(verify_templates(templates.unit_TD, chunks(), World())))


def time_distractors(chosen: argparse.Namespace) -> None:
    probe_PD, distractor_GD = (
        some_rows(rows, chosen.device, seed) for seed, rows in enumerate((chosen.probes, chosen.distractors))
    )
    labels_P = torch.arange(chosen.probes, device=chosen.device) // 44
    what = f"{chosen.probes:,} probes among {chosen.distractors:,} distractors"
    measured(what, chosen.device, lambda: void(among_distractors(probe_PD, labels_P, distractor_GD, World())))


def void(_: object) -> None:
    """Nothing, where a result is not wanted."""


if __name__ == "__main__":
    sys.exit(main())
