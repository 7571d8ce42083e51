"""A run's evaluation as one HTML file: figures, curves, pairs of pictures, the config."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from launch.pages.curves import evaluation_curves, stage_begins, training_curves
from launch.pages.figures import roc_figure, score_figure
from launch.pages.page import data_uri, jpeg, write_page
from launch.pages.protocol_figures import cmc_figure, det_figure, rejection_figure
from partial_fc.evaluation import Evaluation

PICTURE_PIXELS, LARGEST_PICTURE_BYTES = 224, 32 * 1024
MEDIA_TYPES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
KINDS = {
    (True, False): ("Same identity, rejected", "the misses: lowest cosine first"),
    (False, True): ("Different identities, accepted", "the false alarms: highest cosine first"),
    (True, True): ("Same identity, accepted", "right, drawn at random"),
    (False, False): ("Different identities, rejected", "right, drawn at random"),
}


@dataclass(frozen=True)
class PairPicture:
    """Two encoded pictures (PNG or JPEG; other formats are re-encoded) and what was said of them; see `ExamplePair`."""

    first: bytes
    second: bytes
    cosine: float
    same: bool
    accepted: bool
    first_caption: str = ""
    second_caption: str = ""

    @property
    def sides(self) -> list[tuple[str, str]]:
        """Address and caption of each picture."""
        return [(_shown(self.first), self.first_caption), (_shown(self.second), self.second_caption)]


def write_report(
    path: Path,
    evaluation: Evaluation,
    *,
    title: str,
    seen: str = "",
    config: str | Mapping[str, Any] = "",
    metrics: Sequence[Mapping[str, Any]] = (),
    stages: Sequence[str] = (),
    evaluations: Sequence[Mapping[str, Any]] = (),
    pairs: Sequence[PairPicture] = (),
) -> None:
    """Write the page; `metrics` are the records of `metrics.jsonl`, `config` text (YAML) or what JSON can say.

    `evaluations` are those of `evaluations.jsonl`. `stages` are the names of the run's stages: a line in the curves
    marks where each but the first began.
    `seen` is what is known of whether the identities were trained on: "not seen in training". Sections without content
    are left out. A picture above 32 KiB is scaled down to 224 pixels, so that the page stays small enough to send.
    """
    write_page(
        path,
        "report.html",
        title=title,
        seen=seen,
        evaluation=evaluation,
        tiles=_tiles(evaluation),
        rates=[
            (far, _percent(tar), f"{evaluation.threshold_at_far[far]:.4f}")
            for far, tar in evaluation.tar_at_far.items()
        ],
        roc=roc_figure(evaluation),
        det=det_figure(evaluation.roc),
        cmc=cmc_figure({"leave one out": evaluation.cmc}),
        rejection=rejection_figure(evaluation.rejection) if evaluation.rejection else "",
        scores=score_figure(evaluation, logarithmic=False),
        scores_logarithmic=score_figure(evaluation, logarithmic=True),
        curves=[*training_curves(metrics, stages), *evaluation_curves(evaluations)],
        begins=[(name, f"{step + 1:,}") for step, name in stage_begins(metrics, stages)],
        first_stage=stages[0] if stages else "",
        groups=_groups(pairs) if pairs else [],
        config=config if isinstance(config, str) or not config else json.dumps(config, indent=2, default=str),
    )


def _tiles(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """The key figures, large: name, value and note."""
    counts, far = evaluation.counts, evaluation.operating_far
    tiles = [
        ("Rank-1", _percent(evaluation.rank1), f"{counts['rank1_hits']:,} of {counts['rank1_probes']:,} probes"),
        ("Equal error rate", _percent(evaluation.eer), f"at cosine {evaluation.eer_threshold:.3f}"),
        ("Best accuracy", _percent(evaluation.best_accuracy), "genuine and impostor weighted alike"),
    ]
    if far is not None:
        at_cosine = f"at cosine {evaluation.operating_threshold:.3f}"
        tiles.insert(1, (f"TAR at FAR {far}", _percent(evaluation.tar_at_far[far]), at_cosine))
    if evaluation.kfold_accuracy is not None:
        found = evaluation.kfold_accuracy
        note = f"standard error {_percent(found.standard_error)}, deviation {_percent(found.std)} over the folds"
        tiles.append(("Pair list, k-fold", _percent(found.mean), note))
    return tiles


def _groups(pairs: Sequence[PairPicture]) -> list[dict[str, object]]:
    """The pairs by what they are and what was said of them, every kind among them."""
    return [
        {
            "name": name,
            "note": note,
            "is_right": same == accepted,
            "pairs": [pair for pair in pairs if (pair.same, pair.accepted) == (same, accepted)],
        }
        for (same, accepted), (name, note) in KINDS.items()
    ]


def _shown(content: bytes) -> str:
    """The picture as it is where a browser can show it and it is small, else scaled down."""
    media_type = next((name for magic, name in MEDIA_TYPES.items() if content.startswith(magic)), None)
    if media_type is not None and len(content) <= LARGEST_PICTURE_BYTES:
        return data_uri(content, media_type)
    with Image.open(io.BytesIO(content)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
    return data_uri(jpeg(small))


def _percent(rate: float) -> str:
    """Two decimals, and never a rounded-up 100 %."""
    return "100 %" if rate == 1 else f"{min(100 * rate, 99.99):.2f} %"
