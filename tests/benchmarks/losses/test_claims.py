"""What the papers claim: the table of runs, the sets they need, the tables and the gallery."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from kept_pictures import assert_alike
from PIL import Image
from test_losses import result

from benchmarks.documents import DOCS
from benchmarks.losses import __main__ as losses
from benchmarks.losses import claim_figures
from benchmarks.losses.claims import CLAIMS, FEW, IDENTITIES, SCALE
from benchmarks.losses.gallery import curves, draw, panels
from benchmarks.losses.runs import RUNS, Run
from benchmarks.losses.sets import prepare
from data_pipeline.formats.recordio.writer import RecordWriter
from launch.assembly.data import open_held_out
from launch.config.loading import load_config
from partial_fc.objectives import OBJECTIVES

BY_NAME = {run.name: run for run in CLAIMS}


def test_every_run_has_a_name_of_its_own() -> None:
    assert len({run.name for run in (*CLAIMS, *RUNS)}) == len(CLAIMS) + len(RUNS)


@pytest.mark.parametrize("run", CLAIMS, ids=lambda run: run.name)
def test_every_run_is_a_configuration_the_trainer_takes(run: Run) -> None:
    words = losses.words(run.settings(1), Path("data"), Path("run"), "1", (run.train, run.evaluate))
    config = load_config(losses.CONFIG, [word for flag, word in itertools.pairwise(words) if flag == "--set"])
    assert config.data.train == Path("data", run.train).resolve()
    assert (config.seed, config.data.image_size) == (1, 20)
    assert config.classifier.learning_rate == run.row_learning_rate


def test_runs_of_fewer_images_take_as_many_steps() -> None:
    for run in CLAIMS:
        if run.group == FEW:
            assert run.epochs is not None
            assert run.epochs * (run.varied or 0) == 40


def test_a_row_moves_as_far_under_every_scale_of_a_softmax() -> None:
    for name in ("normface", "cosface", "arcface"):
        steps = [BY_NAME[f"scale-{name}-{scale}"].row_learning_rate * scale for scale in (10, 30, 64)]
        assert steps == pytest.approx([steps[0]] * 3, rel=5e-3)


def test_a_set_of_few_images_holds_the_first_of_each_identity(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    (tmp_path / "background").mkdir()
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "train.rec").touch()  # there: nothing is made
    contents = {}
    with RecordWriter(tmp_path / "background" / "train.rec") as writer:
        for label in range(3):
            for number in range(12):
                Image.fromarray(np.full((4, 4, 3), 20 * number + label, dtype=np.uint8)).save(picture)
                contents[label, number] = picture.read_bytes()
                writer.append(label, contents[label, number])
    run = BY_NAME["few-adacos-5"]
    prepare(run, tmp_path)
    few = open_held_out(tmp_path / run.train)
    assert [bytes(few.read(sample)) for sample in range(len(few))] == [
        contents[label, number] for label in range(3) for number in range(5)
    ]
    prepare(run, tmp_path)  # nothing is made twice


@pytest.mark.slow
def test_drawn_people_are_as_many_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.losses.sets.MADE_IMAGES", 4_000)
    monkeypatch.setattr("benchmarks.losses.sets.MADE_HELD_OUT", 3)
    run = BY_NAME["identities-adacos-1000"]
    prepare(run, tmp_path)
    people, held_out = (open_held_out(tmp_path / name) for name in (run.train, run.evaluate))
    assert (len(people), people.num_classes) == (4_000, 1_000)
    assert (len(held_out), held_out.num_classes) == (60, 3)


def test_tables_put_what_has_nothing_to_tune_beside_what_has() -> None:
    claims = [
        result(BY_NAME["claims-adacos"], rank1=0.81),
        *(result(BY_NAME["scale-cosface-10"], seed, rank1=rank1) for seed, rank1 in enumerate((0.6, 0.7))),
        result(BY_NAME["scale-cosface-30"], rank1=None),
    ]
    for made in claims:
        if made.evaluation is not None:
            made.evaluation["tar_at_far"] |= {"1e-3": 0.5}
    scales = claim_figures.tables(claims, []).partition("\n\n### ")[0]
    assert scales.splitlines()[4:] == [
        "| AdaCos | none | 1 | 0.810 | 0.050 | 0.700 | 0.500 |",
        "| CosFace | 10 | 2 | 0.650 ± 0.071 | 0.050 ± 0.000 | 0.700 ± 0.000 | 0.500 ± 0.000 |",
        "| CosFace (1 of 1 diverged) | 30 | 1 | – | – | – | – |",
    ]


def test_a_panel_takes_the_common_runs_at_their_own_value() -> None:
    (few,) = (group for group in claim_figures.GROUPS if group.group == FEW)
    claims = [result(BY_NAME["few-adacos-5"]), result(BY_NAME["claims-adacos"]), result(BY_NAME["few-adacos-2"])]
    assert [point.varied for point in claim_figures.points(few, claims, [])] == [2, 5, 20]
    (margins,) = (group for group in claim_figures.GROUPS if group.group == "margin")
    claims = [result(BY_NAME["margin-arcface-0.7"]), result(BY_NAME["scale-arcface-30"])]
    assert [point.varied for point in claim_figures.points(margins, claims, [])] == [0.5, 0.7]
    groups = {group.group for group in claim_figures.GROUPS}
    assert {SCALE, IDENTITIES} < groups
    assert {run.group for run in CLAIMS} <= groups


def test_the_figure_is_drawn_twice_alike(tmp_path: Path) -> None:
    claims = [result(run) for run in CLAIMS]
    for name in ("a.svg", "b.svg"):
        claim_figures.draw(claims, [result(run) for run in RUNS], tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


# The gallery


def test_every_loss_is_in_the_gallery_and_its_picture_is_the_one_in_the_documents(tmp_path: Path) -> None:
    assert {type(panel.objective) for panel in panels()} == set(OBJECTIVES.values())
    draw(tmp_path / "gallery.svg")
    assert_alike(tmp_path / "gallery.svg", DOCS / "experiments" / "gallery.svg")


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel.title)
def test_probability_falls_and_push_fades_with_the_angle(panel: object) -> None:
    degrees, pull, push, probability = curves(panel)  # type: ignore[arg-type]
    assert not (np.diff(probability) > 1e-9).any()
    assert np.isnan(probability).all() == ("steady" in str(panel))
    assert (np.diff(push) <= 1e-9).all()
    assert pull[0] < 0.1 or "steady" in str(panel)
    assert degrees.size == pull.size


def test_a_softmax_without_a_margin_pulls_with_what_its_probability_leaves() -> None:
    for panel in panels()[:3]:
        _, pull, _, probability = curves(panel)
        torch.testing.assert_close(torch.from_numpy(pull), torch.from_numpy(1.0 - probability), atol=1e-9, rtol=0.0)
