"""Can two moments stand for the classes that are not near? The normaliser of a softmax, at a training's checkpoints.

    python -m benchmarks.bulk_split runs/omniglot --document docs/experiments.md

A softmax of all C classes needs every cosine, `ln Σ_j exp(s c_j)`. Split: the classes nearer than chance exactly, and
of the others, of which nothing is known but their mean row and their covariance,

    Σ_far exp(s c_j) ≈ C_far · exp(s m + ½ s² v)

with the mean m and the variance v of an image's cosines with them: what a Gram matrix and a mean row give without a
single cosine. RUN is a run on one rank, with AdaCos and several checkpoints kept.

Legend: `N` images; `C` classes; `D` dimensions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.arguments import parser
from benchmarks.documents import publish, table
from launch import assembly
from launch.assembly.run_folder import RunFolder
from launch.config.loading import load_config
from partial_fc import AdaCos, World
from partial_fc.checkpoint.layout import whole_checkpoints
from partial_fc.functional.cosine import unit_rows
from partial_fc.functional.p2sgrad import chance_cosine

BATCHES = 8
COLUMNS = ("step", "scale", "near classes", "error of ln Σ", "worst", "error of the scale", "error of the gradient")


class Normaliser(NamedTuple):
    """`ln Σ_{j≠y} exp(s c_j)`, `(N,)`, and its gradient by the unit embeddings, `(N, D)`, tangent to the sphere."""

    log_N: Tensor
    gradient_ND: Tensor


@dataclass(frozen=True)
class Finding:
    """One checkpoint: errors are medians over images but for the worst; that of the gradient is relative."""

    step: int
    scale: float
    near_classes: float
    log_error: float
    worst_log_error: float
    scale_error: float
    gradient_error: float


def exact(unit_ND: Tensor, rows_CD: Tensor, labels_N: Tensor, scale: float) -> Normaliser:
    """By all cosines."""
    logits_NC = (scale * unit_ND @ rows_CD.T).scatter(1, labels_N[:, None], -torch.inf)
    log_N = torch.logsumexp(logits_NC, dim=1)
    return Normaliser(log_N, _tangent(scale * (logits_NC - log_N[:, None]).exp() @ rows_CD, unit_ND))


def split(unit_ND: Tensor, rows_CD: Tensor, labels_N: Tensor, scale: float, above: float) -> Normaliser:
    """By the cosines above `above`, and by the mean row and the Gram matrix for the others."""
    cosines_NC, number = unit_ND @ rows_CD.T, len(rows_CD)
    are_exact_NC = (cosines_NC > above).scatter(1, labels_N[:, None], True)
    near_NC = torch.where(are_exact_NC, cosines_NC, 0.0)
    far_N = number - are_exact_NC.sum(dim=1)
    mean_D, gram_DD = rows_CD.mean(dim=0), rows_CD.T @ rows_CD
    pushed_ND = unit_ND @ gram_DD
    m_N = (number * unit_ND @ mean_D - near_NC.sum(dim=1)) / far_N
    v_N = ((unit_ND * pushed_ND).sum(dim=1) - near_NC.square().sum(dim=1)) / far_N - m_N.square()
    far_log_N = far_N.log() + scale * m_N + 0.5 * scale**2 * v_N
    is_near_NC = are_exact_NC.scatter(1, labels_N[:, None], False)
    near_logits_NC = torch.where(is_near_NC, scale * cosines_NC, -torch.inf)
    log_N = torch.logaddexp(torch.logsumexp(near_logits_NC, dim=1), far_log_N)
    far_mean_ND = (number * mean_D - are_exact_NC.to(rows_CD.dtype) @ rows_CD) / far_N[:, None]
    far_pushed_ND = (pushed_ND - near_NC @ rows_CD) / far_N[:, None] - m_N[:, None] * far_mean_ND
    far_ND = (far_log_N - log_N).exp()[:, None] * (far_mean_ND + scale * far_pushed_ND)
    near_ND = (near_logits_NC - log_N[:, None]).exp() @ rows_CD
    return Normaliser(log_N, _tangent(scale * (near_ND + far_ND), unit_ND))


def compared(unit_ND: Tensor, rows_CD: Tensor, labels_N: Tensor, scale: float, step: int) -> Finding:
    """Both ways, for one checkpoint. The error of the scale is that of AdaCos' next one, at a median angle of 45°."""
    above = chance_cosine(*rows_CD.shape)
    truth = exact(unit_ND, rows_CD, labels_N, scale)
    found = split(unit_ND, rows_CD, labels_N, scale, above)
    near_N = (unit_ND @ rows_CD.T > above).scatter(1, labels_N[:, None], False).sum(dim=1)
    errors_N = found.log_N - truth.log_N
    averages = [torch.logsumexp(each.log_N, dim=0) for each in (found, truth)]
    gradient_N = (found.gradient_ND - truth.gradient_ND).norm(dim=1) / truth.gradient_ND.norm(dim=1)
    return Finding(
        step,
        scale,
        near_N.double().mean().item(),
        errors_N.abs().median().item(),
        errors_N.abs().max().item(),
        (averages[0] - averages[1]).item() * 2**0.5,
        gradient_N.median().item(),
    )


@torch.no_grad()
def findings(run: Path) -> list[Finding]:
    """One for each checkpoint of `run`. ValueError for another loss than AdaCos."""
    config = load_config(RunFolder(run).config)
    source = assembly.open_training_data(config.data, config.seed)
    found = []
    for folder in whole_checkpoints(RunFolder(run).checkpoints):
        backbone = assembly.backbone(config.backbone, config.data.image_size)
        parts = assembly.run(config, source, backbone, World(), torch.device("cpu"), facts={}, resumed=folder.path)
        if not isinstance(parts.head.objective, AdaCos):
            raise ValueError(f"{folder.path}: expected a checkpoint of AdaCos")
        batches = [next(parts.batches) for _ in range(BATCHES)]
        unit_ND = torch.cat([unit_rows(parts.backbone(batch.images).double())[0] for batch in batches])
        labels_N = torch.cat([batch.labels for batch in batches])
        rows_CD = unit_rows(parts.head.weight.double())[0]
        found.append(compared(unit_ND, rows_CD, labels_N, parts.head.objective.scale.item(), parts.start_step))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and write it into the document if one is given."""
    arguments = parser("bulk_split", __doc__)
    arguments.add_argument("run", type=Path, metavar="RUN", help="the folder of a run on one rank")
    arguments.add_argument("--document", type=Path, help="has the markers <!-- bulk split --> and <!-- /bulk split -->")
    asked = arguments.parse_args(argv)
    found = findings(asked.run)
    publish({"findings": list(map(asdict, found))}, "bulk split", _table(found), kept=None, document=asked.document)
    return 0


def _table(found: Sequence[Finding]) -> str:
    rows = [
        [
            f"{each.step:,}",
            f"{each.scale:.1f}",
            f"{each.near_classes:.3g}",
            f"{each.log_error:.2g}",
            f"{each.worst_log_error:.2g}",
            f"{each.scale_error:+.2g}",
            f"{each.gradient_error:.1%}".replace("%", " %"),
        ]
        for each in found
    ]
    return table(COLUMNS, rows, text_columns=0)


def _tangent(vectors_ND: Tensor, unit_ND: Tensor) -> Tensor:
    return vectors_ND - (vectors_ND * unit_ND).sum(dim=1, keepdim=True) * unit_ND


if __name__ == "__main__":
    sys.exit(main())
