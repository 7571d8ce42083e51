"""A run's evaluation as one HTML file that needs nothing else: figures, curves, pairs of pictures, the config.

Nothing is fetched: figures are inline SVG, pictures data URIs, fonts the reader's own; there is no script. The page
follows the reader's light or dark setting and fits a telephone.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from launch.pages.figures import roc_figure, score_figure, training_curves
from launch.pages.style import STYLE_SHEET
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


def write_report(
    path: Path,
    evaluation: Evaluation,
    *,
    title: str,
    config: str | Mapping[str, Any] = "",
    metrics: Sequence[Mapping[str, Any]] = (),
    pairs: Sequence[PairPicture] = (),
) -> None:
    """Write the page; `metrics` are the records of `metrics.jsonl`, `config` text (YAML) or what JSON can say.

    Sections without content are left out. A picture above 32 KiB is scaled down to 224 pixels, so that the page stays
    small enough to send.
    """
    sections = [
        _tiles(evaluation),
        _verification(evaluation),
        _training(metrics),
        _pairs(evaluation, pairs),
        _config(config),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE_SHEET}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{html.escape(title)}</h1><p>{_summary(evaluation)}</p></header>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )
    path.write_text(page, encoding="utf-8")


def _summary(evaluation: Evaluation) -> str:
    counts = evaluation.counts
    return (
        f"{counts['images']:,} images of {counts['identities']:,} identities that training never saw: "
        f"every one of their {counts['genuine_pairs'] + counts['impostor_pairs']:,} pairs compared, "
        f"{counts['genuine_pairs']:,} genuine and {counts['impostor_pairs']:,} impostor."
    )


def _tiles(evaluation: Evaluation) -> str:
    """The key figures, large."""
    counts, far = evaluation.counts, evaluation.operating_far
    tiles = [
        ("Rank-1", _percent(evaluation.rank1), f"{counts['rank1_hits']:,} of {counts['rank1_probes']:,} probes"),
        ("Equal error rate", _percent(evaluation.eer), f"at cosine {evaluation.eer_threshold:.3f}"),
        ("Best accuracy", _percent(evaluation.best_accuracy), "genuine and impostor weighted alike"),
    ]
    if far is not None:
        tar = (
            "TAR at FAR " + far,
            _percent(evaluation.tar_at_far[far]),
            f"at cosine {evaluation.operating_threshold:.3f}",
        )
        tiles.insert(1, tar)
    if evaluation.kfold_accuracy is not None:
        mean, std = evaluation.kfold_accuracy
        tiles.append(("Pair list, k-fold", _percent(mean), f"± {_percent(std)} over the folds"))
    cells = [
        f'<div class="tile"><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>' for name, value, note in tiles
    ]
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _verification(evaluation: Evaluation) -> str:
    rows = [
        f"<tr><th scope=row>{far}</th><td>{_percent(tar)}</td><td>{evaluation.threshold_at_far[far]:.4f}</td></tr>"
        for far, tar in evaluation.tar_at_far.items()
    ]
    table = (
        '<div class="card"><h3>True accepts at a given false accept rate</h3>'
        "<table><thead><tr><th>FAR</th><th>TAR</th><th>cosine threshold</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
        f'<p class="note">Counted over {evaluation.counts["impostor_pairs"]:,} impostor pairs; '
        "a rate that they cannot resolve is left out.</p></div>"
    )
    return (
        '<section><h2>Verification</h2><div class="wide">'
        f"{_figure('ROC', roc_figure(evaluation))}{table if rows else ''}"
        f"{_figure('Cosines', score_figure(evaluation, logarithmic=False))}"
        f"{_figure('Cosines, logarithmic: the tails', score_figure(evaluation, logarithmic=True))}"
        "</div></section>"
    )


def _training(metrics: Sequence[Mapping[str, Any]]) -> str:
    cards = [_figure(curve.name, curve.svg, curve.last) for curve in training_curves(metrics)]
    return f'<section><h2>The run</h2><div class="narrow">{"".join(cards)}</div></section>' if cards else ""


def _pairs(evaluation: Evaluation, pairs: Sequence[PairPicture]) -> str:
    if not pairs:
        return ""
    groups = []
    for (same, accepted), (name, note) in KINDS.items():
        cards = [_pair(pair) for pair in pairs if (pair.same, pair.accepted) == (same, accepted)]
        right = "right" if same == accepted else "wrong"
        content = "".join(cards) or '<p class="none">None.</p>'
        heading = (
            f'<h3><span class="badge">{"✓" if same == accepted else "✗"}</span> {name}</h3><p class="note">{note}</p>'
        )
        groups.append(f'<div class="card group {right}">{heading}<div class="pairs">{content}</div></div>')
    at = "the equal error rate" if evaluation.operating_far is None else f"FAR {evaluation.operating_far}"
    return (
        f"<section><h2>Pairs</h2><p>Accepted means a cosine of at least {evaluation.operating_threshold:.3f}, "
        f'the threshold at {at}.</p><div class="wide">{"".join(groups)}</div></section>'
    )


def _pair(pair: PairPicture) -> str:
    sides = [(pair.first, pair.first_caption), (pair.second, pair.second_caption)]
    pictures = [
        f'<img src="{_data_uri(content)}" alt="{html.escape(caption)}" title="{html.escape(caption)}">'
        for content, caption in sides
    ]
    captions = [f"<span>{html.escape(caption)}</span>" for _, caption in sides if caption]
    cosine = f"{pair.cosine:.3f}".replace("-", "−")
    return (
        f'<figure class="pair">{"".join(pictures)}<figcaption><b>{cosine}</b>{"".join(captions)}</figcaption></figure>'
    )


def _data_uri(content: bytes) -> str:
    """The picture as it is where a browser can show it and it is small, else scaled down."""
    media_type = next((name for magic, name in MEDIA_TYPES.items() if content.startswith(magic)), None)
    if media_type is None or len(content) > LARGEST_PICTURE_BYTES:
        with Image.open(io.BytesIO(content)) as picture:
            small = picture.convert("RGB")
        small.thumbnail((PICTURE_PIXELS, PICTURE_PIXELS))
        encoded = io.BytesIO()
        small.save(encoded, format="JPEG", quality=88)
        content, media_type = encoded.getvalue(), "image/jpeg"
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _config(config: str | Mapping[str, Any]) -> str:
    text = config if isinstance(config, str) else json.dumps(config, indent=2, default=str)
    return f"<details><summary>Configuration</summary><pre>{html.escape(text)}</pre></details>" if config else ""


def _figure(name: str, svg: str, last: str = "") -> str:
    value = f'<span class="last">{last}</span>' if last else ""
    return f'<figure class="card"><figcaption><h3>{name}</h3>{value}</figcaption>{svg}</figure>'


def _percent(rate: float) -> str:
    """Two decimals, and never a rounded-up 100 %."""
    return "100 %" if rate == 1 else f"{min(100 * rate, 99.99):.2f} %"
