"""The normaliser of a softmax by near classes and two moments of the others, against all cosines."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from torch.nn.functional import normalize

from benchmarks import bulk_split
from benchmarks.bulk_split import compared, exact, split
from launch import train
from launch.config.loading import load_config

C, D, N = 3000, 64, 40


def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    rows_CD = normalize(torch.randn(C, D, dtype=torch.float64))
    labels_N = torch.randint(C, (N,))
    return normalize(torch.randn(N, D, dtype=torch.float64) / 8 + rows_CD[labels_N]), rows_CD, labels_N


def test_the_gradient_of_the_exact_one_is_autograds() -> None:
    unit_ND, rows_CD, labels_N = problem()
    leaf_ND = unit_ND.clone().requires_grad_()
    others_NC = torch.ones(N, C).scatter(1, labels_N[:, None], 0.0).bool()
    logits_NC = 10.0 * normalize(leaf_ND) @ rows_CD.T
    log_N = logits_NC.masked_fill(~others_NC, -torch.inf).logsumexp(dim=1)
    (expected_ND,) = torch.autograd.grad(log_N.sum(), leaf_ND)
    found = exact(unit_ND, rows_CD, labels_N, 10.0)
    torch.testing.assert_close(found.log_N, log_N.detach())
    torch.testing.assert_close(found.gradient_ND, expected_ND)


def test_where_all_far_classes_are_one_the_split_is_exact() -> None:
    """Then their cosines have no variance, nor anything beyond it."""
    first_D = torch.eye(D, dtype=torch.float64)[0]
    unit_ND, near_CD = (normalize(first_D + 0.05 * torch.randn(number, D)) for number in (N, 200))
    rows_CD = torch.cat([near_CD, -first_D.expand(500, D)])
    labels_N = torch.randint(200, (N,))
    truth = exact(unit_ND, rows_CD, labels_N, 10.0)
    found = split(unit_ND, rows_CD, labels_N, 10.0, 0.0)
    torch.testing.assert_close(found.log_N, truth.log_N)
    torch.testing.assert_close(found.gradient_ND, truth.gradient_ND)


def test_of_random_classes_at_a_small_scale_two_moments_say_nearly_all() -> None:
    finding = compared(*problem(), 3.0, 7)
    assert (finding.step, finding.scale) == (7, 3.0)
    assert finding.log_error < 0.01
    assert finding.gradient_error < 0.2


def test_a_runs_checkpoints_are_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.write_data(tmp_path / "data")
    content = tiny.tree(data, tmp_path / "run", schedule={"epochs": 1}, save_every_steps=3)
    train.run(load_config(tiny.write_config(tmp_path / "config.yaml", content)))
    page = tmp_path / "page.md"
    page.write_text("<!-- bulk split -->\n<!-- /bulk split -->\n")
    assert bulk_split.main([str(tmp_path / "run"), "--document", str(page)]) == 0
    assert page.read_text().count("\n| ") == 4, "two checkpoints, the heading and its rule"
    assert page.read_text().splitlines()[3] in capsys.readouterr().out
