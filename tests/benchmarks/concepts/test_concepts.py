"""The pages on concepts: their pictures are what the command draws, and their programs print what stands there."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch
from kept_pictures import assert_alike

from benchmarks.concepts import contract, head, lives, near, trained
from benchmarks.concepts.__main__ import FOLDER, PICTURES, main
from benchmarks.documents import DOCS
from partial_fc import CosFace, P2SGrad, ShardedClassifier
from partial_fc.rows.sampling import initial_rows
from partial_fc.sweeps.near_sweep import NearSweep

PAGES = [DOCS / "concepts.md", *sorted((DOCS / "concepts").glob("*.md"))]
PROGRAM = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)


def test_the_pictures_are_what_the_command_draws(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    names = {f"{name}.svg" for name in PICTURES}
    assert {file.name for file in tmp_path.iterdir()} == names == {file.name for file in FOLDER.iterdir()}
    for name in names:
        assert_alike(tmp_path / name, FOLDER / name)


def test_every_picture_stands_on_a_page_and_every_page_has_its_own() -> None:
    shown = [name for page in PAGES for name in re.findall(r"images/concepts/(\w+)\.svg", page.read_text())]
    assert sorted(shown) == sorted(PICTURES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_programs_of_a_page_print_what_stands_there(page: Path) -> None:
    for program, text in PROGRAM.findall(page.read_text()):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(program, str(page), "exec"), {"__name__": "page"})
        assert printed.getvalue() == text


@pytest.mark.parametrize("name", lives.LIVES)
def test_the_stations_of_a_life_exist(name: str) -> None:
    assert all(callable(station.found()) for station in lives.LIVES[name])
    with pytest.raises(AttributeError):
        lives.Station("", "partial_fc.loop:no_such_name", "").found()


def test_the_cosines_of_the_picture_give_the_loss_of_the_classifier() -> None:
    given = head.example()
    classifier = ShardedClassifier(head.C, head.D, CosFace(16.0, 0.2)).double()
    with torch.no_grad():
        classifier.weight.copy_(given.rows_CD)
    logits_NC = 16.0 * given.cosines_NC
    logits_NC[torch.arange(head.N), given.labels_N] -= 16.0 * 0.2
    expected = torch.nn.functional.cross_entropy(logits_NC, given.labels_N)
    torch.testing.assert_close(classifier(given.unit_ND, given.labels_N), expected)


def test_the_ranks_parts_add_up_to_one_process_and_their_average_does_not() -> None:
    found = contract.gradients()
    whole = found["one process, 4 images"]
    assert found["their sum"] == pytest.approx(whole, rel=1e-5)
    assert found["their average"] == pytest.approx(whole / 2, rel=1e-5)
    assert abs(found["mean of each rank's own mean"] - whole) > 0.1 * abs(whole)


def test_the_look_counts_what_the_classifier_counts() -> None:
    """Near classes, and candidates that include every one of them and every target beyond chance."""
    found = near.random_rows()
    classifier = ShardedClassifier(found.num_classes, found.embedding_dim, P2SGrad(negatives="beyond_chance"))
    embeddings_ND = initial_rows(range(found.images), found.embedding_dim, seed=1)
    labels_N = torch.arange(found.images)
    classifier(embeddings_ND, labels_N)
    assert isinstance(classifier._sweep(embeddings_ND, labels_N, [len(labels_N)], torch.float32), NearSweep)
    assert classifier.statistics["near_per_image"].item() == pytest.approx(found.near_pairs / found.images)
    for looked in (found, trained.kept()):
        assert min(looked.candidates.values()) >= looked.near_pairs
        assert sum(looked.others) == looked.images * (looked.num_classes - 1)
        assert sum(looked.targets) == looked.images
    moved = f"{trained.kept().moved_rows:,} of {trained.kept().num_classes:,} move"
    assert moved in (DOCS / "concepts" / "near.md").read_text().replace("\n", " ")
