"""Measure whole training steps of the classifier, alone or in turns with another.

    python -m benchmarks.classifier --objective p2sgrad --num-classes 200000 --embedding-dim 512 --batch 512 --steps 5
    python -m benchmarks.classifier --objective adacos --num-classes 200000 --dtype bfloat16 --against dense --json OUT
    python -m benchmarks.classifier --objective cosface --num-classes 200000 --against heads/mine.py:MyHead

A step is forward, backward and the update of the rows, on random unit embeddings and labels made before its clock
starts. Each contender has processes of its own, one for each rank, and they take turns: ours, the other, ours, ...

`--against dense` is a plain model of what the field does (`dense_classifier.py`, always CosFace with s = 64, m = 0.4).
`--against PATH:CLASS` is any torch.nn.Module: made as CLASS(num_classes=, embedding_dim=), with sample_rate= where it
takes that, or as CLASS(margin_loss, embedding_size, num_classes, sample_rate) with CosFace for the margin; called as
module(embeddings, labels) for the loss; stepped by plain SGD with momentum. It meets the same batches.
`--against ours --against-num-classes C` is our own over another number of classes: does the time per class change?
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path

from benchmarks.classifier.case import CHOICES, Case
from benchmarks.classifier.measure import check_machine, measured, print_progress
from benchmarks.classifier.records import told, write_record
from benchmarks.classifier.teams import TeamError

TYPES = {"int": int, "float": float}
HELP = {
    "objective": "the loss of our classifier",
    "num_classes": "C, over all ranks",
    "embedding_dim": "D",
    "batch": "N, the global batch: each rank brings N / world rows",
    "sample_rate": "the share of classes that a step looks at",
    "world": "ranks: processes over gloo on CPUs, NCCL on GPUs; on CPUs they share the threads",
    "device": "where",
    "dtype": "of the big products",
    "weight_dtype": "of the rows; bfloat16 is rounded stochastically",
    "cosines": "kept between the sweeps, made again, or as the memory allows",
    "gram": "whether P2SGrad goes without cosines; auto: where that is the shorter road",
    "row_optimizer": "of the rows, in the sweep of the gradient; none: weight.grad and torch's SGD",
    "momentum": "of SGD, for every contender; 0: no state",
    "state_dtype": "of the row optimizer's moments",
    "steps": "measured steps of each contender",
    "warm_up": "steps before those, not measured; their memory is",
    "steps_per_turn": "how many steps a contender makes before the other's turn",
    "against": "dense, PATH:CLASS, or ours over another number of classes",
    "against_num_classes": "of the other, where it is ours",
    "against_sample_rate": "the other's rate (default: ours)",
    "against_dtype": "of the dense contender's big products",
}


def main(argv: Sequence[str] | None = None) -> int:
    """0: measured; 1: a contender failed; 2: what was asked cannot be measured here."""
    arguments = _parser().parse_args(argv)
    try:
        case = Case(**{field.name: getattr(arguments, field.name) for field in fields(Case)})
        check_machine(case)
    except ValueError as error:
        print(f"classifier: {error}", file=sys.stderr)
        return 2
    try:
        record = measured(case, print_progress)
    except TeamError as error:
        print(f"classifier: {error}", file=sys.stderr)
        return 1
    print("\n".join(told(record)))
    if arguments.json is not None:
        write_record(record, arguments.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.classifier",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for field in fields(Case):
        is_required = field.default is MISSING
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=TYPES.get(str(field.type).removesuffix(" | None"), str),
            choices=CHOICES.get(field.name),
            required=is_required,
            default=None if is_required else field.default,
            metavar=None if field.name in CHOICES else "dense|ours|PATH:CLASS" if field.name == "against" else "X",
            help=HELP[field.name] + ("" if is_required or field.default is None else " (default: %(default)s)"),
        )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the record here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
