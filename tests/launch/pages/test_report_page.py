"""The page as a reader's browser takes it apart: every part there, nothing fetched, nothing broken by odd input."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from html_page import Page
from PIL import Image

from launch.pages.curves import training_curves
from launch.pages.figures import VARIABLES
from launch.pages.report import LARGEST_PICTURE_BYTES, PairPicture, write_report
from partial_fc.evaluation import Evaluation, evaluate
from partial_fc.world import World


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.arange(120) % 20
    rows_ND = torch.randn(20, 16, generator=generator)[labels_N] + 0.8 * torch.randn(120, 16, generator=generator)
    unit_ND = torch.nn.functional.normalize(rows_ND, dim=1)
    return evaluate(unit_ND, labels_N, World(), torch.combinations(torch.arange(120))[::9], norm_N=rows_ND.norm(dim=1))


def picture(size: int = 16, seed: int = 0, encoding: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format=encoding)
    return encoded.getvalue()


def records(steps: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "step": 10 * step,
            "loss": 5 / (step + 1),
            "scale": 11.0,
            "median_target_angle_radians": math.pi / 2 / (step + 1),
            "images_per_second": 1000.0 + step,
            "learning_rate": 0.1,
        }
        for step in range(steps)
    ]


def four_kinds() -> list[PairPicture]:
    outcomes = [(same, accepted) for same in (True, False) for accepted in (True, False)]
    return [
        PairPicture(
            picture(seed=2 * k), picture(seed=2 * k + 1), -0.25 + k / 4, same, accepted, f"left {k}", f"right {k}"
        )
        for k, (same, accepted) in enumerate(outcomes)
    ]


def written(path: Path, evaluation: Evaluation, **sections: Any) -> Page:
    write_report(path / "report.html", evaluation, title="A run", **sections)
    return Page(path / "report.html")


def test_the_page_holds_every_part(tmp_path: Path, evaluation: Evaluation) -> None:
    page = written(tmp_path, evaluation, config={"seed": 7}, metrics=records(), pairs=four_kinds())
    labels = [attributes["aria-label"] or "" for attributes in page.named("svg")]
    assert len(labels) == len(set(labels)) == 6 + 5
    for part in (
        "ROC curve",
        "DET curve",
        "Cumulative match",
        "left out by embedding length",
        "Densities",
        "logarithmic",
        "Loss",
        "Scale",
        "angle",
        "Images per second",
        "Learning rate",
    ):
        assert any(part in label for label in labels), part
    for heading in ("Rank-1", "Equal error rate", "TAR at FAR 1e-3", "Best accuracy", "k-fold", "rejected", "accepted"):
        assert heading in page.text
    for rate in (evaluation.rank1, evaluation.eer, *evaluation.tar_at_far.values()):
        assert ("100 %" if rate == 1 else f"{100 * rate:.2f} %") in page.text
    assert len(page.named("img")) == 8
    assert '"seed": 7' in page.text
    assert "−0.250" in page.text


def test_the_page_fetches_nothing_and_runs_nothing(tmp_path: Path, evaluation: Evaluation) -> None:
    page = written(tmp_path, evaluation, config="a: 1", metrics=records(), pairs=four_kinds())
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link|<iframe", re.sub(r"base64,[^\"]*", "", page.source))
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    for reference in re.findall(r"url\(([^)]*)\)", page.source):
        assert reference.startswith("#")


def test_every_colour_of_a_figure_follows_the_reader_s_setting(tmp_path: Path, evaluation: Evaluation) -> None:
    page = written(tmp_path, evaluation, metrics=records())
    figures = "".join(re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", figures)
    for variable in VARIABLES.values():
        assert variable in figures
        assert f"{variable[4:-1]}:" in page.source


def test_a_thin_line_with_its_name_marks_where_a_stage_begins(tmp_path: Path, evaluation: Evaluation) -> None:
    metrics = [{**record, "stage": 1 + (record["step"] > 120) + (record["step"] > 300)} for record in records()]
    names = ["p2sgrad", "adacos", "all classes"]
    page = written(tmp_path, evaluation, metrics=[*metrics[:20], *metrics[10:]], stages=names)
    for name in names[1:]:
        assert page.source.count(f">{name}</text>") == 5, "in every curve, and once where steps were run twice"
    said = "p2sgrad from the first step, adacos from step 121, all classes from step 301."
    assert said in " ".join(page.text.split())
    assert "not to be compared" in page.text
    for others in ({"metrics": records()}, {"metrics": records(), "stages": ["adacos"]}):
        assert "a stage begins" not in written(tmp_path, evaluation, **others).text


def test_ids_occur_once_and_every_reference_has_its_target(tmp_path: Path, evaluation: Evaluation) -> None:
    page = written(tmp_path, evaluation, metrics=records())
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = re.findall(r"url\(#([^)]*)\)", page.source) + re.findall(r'href="#([^"]*)"', page.source)
    assert targets
    assert set(targets) <= set(ids)


def test_the_same_run_gives_the_same_page(tmp_path: Path, evaluation: Evaluation) -> None:
    first = written(tmp_path, evaluation, metrics=records(), pairs=four_kinds()).source
    assert first == written(tmp_path, evaluation, metrics=records(), pairs=four_kinds()).source


def test_text_from_outside_is_text(tmp_path: Path, evaluation: Evaluation) -> None:
    odd = '<b onclick="x">&"'
    pair = PairPicture(picture(), picture(), 0.5, same=True, accepted=True, first_caption=odd, second_caption=odd)
    write_report(tmp_path / "report.html", evaluation, title=odd, config=odd, pairs=[pair])
    page = Page(tmp_path / "report.html")
    assert page.text.count(odd) == 5  # title, heading, two captions, config
    assert page.named("img")[0]["alt"] == odd
    assert not any("onclick" in attributes for _, attributes in page.tags)


def test_sections_without_content_are_left_out(tmp_path: Path, evaluation: Evaluation) -> None:
    page = written(tmp_path, replace(evaluation, rejection=[]))
    assert len(page.named("svg")) == 5
    assert "Short embeddings" not in page.text
    for absent in ("The run", "Pairs", "Configuration"):
        assert absent not in page.text


def test_a_kind_of_pair_that_never_happened_is_said_so(tmp_path: Path, evaluation: Evaluation) -> None:
    page = written(tmp_path, evaluation, pairs=[pair for pair in four_kinds() if pair.same == pair.accepted])
    assert page.text.count("None.") == 2


@pytest.mark.parametrize("spread", [0.0, None], ids=["perfect", "worthless"])
def test_extreme_embeddings_have_a_page_too(tmp_path: Path, spread: float | None) -> None:
    labels_N = torch.arange(12) % 4
    unit_ND = torch.eye(4)[labels_N] if spread == 0.0 else torch.eye(4)[torch.zeros_like(labels_N)]
    page = written(tmp_path, evaluate(unit_ND, labels_N, World()), metrics=records(1))
    assert ("100 %" if spread == 0.0 else "50.00 %") in page.text


def test_the_smallest_evaluation_has_a_page_too(tmp_path: Path) -> None:
    page = written(tmp_path, evaluate(torch.eye(2)[[0, 0, 1]], torch.tensor([0, 0, 1]), World()))
    assert "TAR at FAR" not in page.text
    assert page.named("table") == []


def test_a_large_run_with_large_pictures_stays_small_enough_to_send(tmp_path: Path, evaluation: Evaluation) -> None:
    rng = np.random.default_rng(0)
    many = [{**record, "loss": rng.normal()} for record in records(20_000)]
    large = picture(800)
    assert len(large) > 10 * LARGEST_PICTURE_BYTES
    pairs = [PairPicture(large, large, 0.1, same=True, accepted=False) for _ in range(8)]
    page = written(tmp_path, evaluation, metrics=many, pairs=pairs)
    assert len(page.source) < 1.5e6


def test_a_picture_that_no_browser_promises_to_show_is_encoded_again(tmp_path: Path, evaluation: Evaluation) -> None:
    bmp, jpeg = picture(encoding="BMP"), picture(encoding="JPEG")
    page = written(tmp_path, evaluation, pairs=[PairPicture(bmp, jpeg, 0.1, same=True, accepted=False)])
    sources = [attributes["src"] or "" for attributes in page.named("img")]
    assert all(source.startswith("data:image/jpeg;base64,/9j/") for source in sources)


def test_a_quantity_that_is_missing_or_never_finite_has_no_curve() -> None:
    metrics: list[dict[str, Any]] = [
        {"step": 1, "loss": math.nan, "scale": None, "learning_rate": 0.1},
        {"step": 2, "loss": math.inf, "scale": None, "learning_rate": 0.05},
        {"no": "step"},
    ]
    assert [(curve.name, curve.last) for curve in training_curves(metrics)] == [("Learning rate", "0.05")]


def test_of_a_step_that_a_resumed_run_repeats_the_last_record_counts() -> None:
    metrics = [{"step": step, "loss": float(value)} for step, value in ((1, 9), (2, 8), (3, 7), (2, 6))]
    (curve,) = training_curves(metrics)
    assert curve.last == "7"
    (same,) = training_curves([metrics[0], metrics[3], metrics[2]])
    assert curve.svg == same.svg


def test_a_spike_in_a_long_run_is_drawn() -> None:
    metrics = [{"step": step, "scale": 10.0} for step in range(50_000)]
    flat = training_curves(metrics)[0].svg
    metrics[31_417] = {"step": 31_417, "scale": 20.0}
    assert training_curves(metrics)[0].svg != flat
