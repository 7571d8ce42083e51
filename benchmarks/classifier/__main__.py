"""Measure whole training steps of the classifier, alone or in turns with another.

    python -m benchmarks.classifier --objective p2sgrad --num-classes 200000 --embedding-dim 512 --batch 512 --steps 5
    python -m benchmarks.classifier --objective adacos --num-classes 200000 --dtype bfloat16 --against dense --json OUT
    python -m benchmarks.classifier --objective cosface --num-classes 200000 --against heads/mine.py:MyHead

A step is forward, backward and the update of the rows, on random unit embeddings and labels made before its clock
starts. Each contender has processes of its own, one for each rank, and they take turns: ours, the other, ours, ...

`--against dense` is a plain model of what the field does (`dense_classifier.py`, always CosFace with s = 64, m = 0.4).
`--against chunked` is torch's own cross-entropy of a linear layer in chunks (`chunked_classifier.py`).
`--against PATH:CLASS` is any torch.nn.Module: made as CLASS(num_classes=, embedding_dim=), with sample_rate= where it
takes that, or as CLASS(margin_loss, embedding_size, num_classes, sample_rate) with CosFace for the margin; called as
module(embeddings, labels) for the loss; stepped by plain SGD with momentum. It meets the same batches.
`--against ours --against-num-classes C` is our own over another number of classes: does the time per class change?
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arguments import parser
from benchmarks.classifier.case import Case, options
from benchmarks.classifier.measure import check_machine, measured
from benchmarks.classifier.records import summary
from benchmarks.results import write_json
from benchmarks.workers import WorkerError

REQUIRED = ("objective", "num_classes")


def main(argv: Sequence[str] | None = None) -> int:
    """0: measured; 1: a contender failed; 2: what was asked cannot be measured here."""
    arguments = _parser().parse_args(argv)
    try:
        case = Case(**{name: getattr(arguments, name) for name in options()})
        check_machine(case)
    except ValueError as error:
        print(f"classifier: {error}", file=sys.stderr)
        return 2
    try:
        record = measured(case, lambda line: print(line, file=sys.stderr, flush=True))
    except WorkerError as error:
        print(f"classifier: {error}", file=sys.stderr)
        return 1
    print(summary(record))
    if arguments.json is not None:
        write_json(record.as_json(), arguments.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    arguments = parser("classifier", __doc__)
    for name, option in options().items():
        default = getattr(Case, name, None)
        arguments.add_argument(
            f"--{name.replace('_', '-')}",
            type=option.kind,
            choices=option.choices,
            required=name in REQUIRED,
            default=default,
            help=option.help + ("" if default is None else " (default: %(default)s)"),
        )
    arguments.add_argument("--json", type=Path, metavar="FILE", help="keep the record here")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
