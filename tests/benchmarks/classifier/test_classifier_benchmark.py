"""The benchmark of the classifier: what it builds, what it refuses, and whole runs in processes of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.classifier import __main__ as classifier
from benchmarks.classifier.__main__ import main
from benchmarks.classifier.case import DENSE, OBJECTIVES, OURS, ROW_OPTIMIZERS, Case
from benchmarks.classifier.contenders import contender
from benchmarks.classifier.measure import random_batch
from benchmarks.classifier.records import Record
from benchmarks.results import read_json
from launch.planning import device_rates
from partial_fc import ShardedClassifier
from partial_fc.world import World

CPU = torch.device("cpu")
SMALL = Case("cosface", num_classes=40, embedding_dim=8, batch=6)
HEADS = """
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self, num_classes, embedding_dim):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, embedding_dim))
    def forward(self, embeddings, labels):
        return nn.functional.cross_entropy(embeddings @ self.weight.T, labels)

class Field(Plain):
    def __init__(self, margin_loss, embedding_size, num_classes, sample_rate=1.0, fp16=False):
        super().__init__(num_classes, embedding_size)
        self.margin_loss, self.sample_rate = margin_loss, sample_rate
    def forward(self, embeddings, labels):
        cosines = nn.functional.normalize(embeddings) @ nn.functional.normalize(self.weight).T
        return nn.functional.cross_entropy(self.margin_loss(cosines, labels), labels)

class Sampled(Plain):
    def __init__(self, num_classes, embedding_dim, sample_rate):
        super().__init__(num_classes, embedding_dim)
        self.sample_rate = sample_rate

class Strange(nn.Module):
    def __init__(self, size):
        super().__init__()

class Pair(Plain):
    def forward(self, embeddings, labels):
        return super().forward(embeddings, labels), labels

class Hungry(Plain):
    def forward(self, embeddings, labels):
        if len(self.weight) > 1000:
            raise MemoryError("no room")
        return super().forward(embeddings, labels)

class SecondFails(Plain):
    def __init__(self, num_classes, embedding_dim):
        import os
        super().__init__(num_classes, embedding_dim)
        if os.environ["RANK"] == "1":
            raise ValueError("rank 1 has had enough")

class NoModule:
    pass
"""


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    path = tmp_path / "heads.py"
    path.write_text(HEADS)
    return path


@pytest.fixture
def _quick_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(device_rates.MATRIX_SIZE, "cpu", 64)
    monkeypatch.setitem(device_rates.STREAM_BYTES, "cpu", 1 << 20)
    monkeypatch.setattr("launch.planning.device_rates.MEASURING_SECONDS", 0.0)


def one_step(name: str, case: Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss, and the weights before and after."""
    made = contender(name, case, World(), CPU)
    (weight,) = made.module.parameters()
    before = weight.detach().clone()
    return made.step(*random_batch(case, 0, 0, CPU)), before, weight.detach()


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("row_optimizer", ROW_OPTIMIZERS)
def test_a_step_of_ours_moves_the_rows_and_leaves_no_gradient(objective: str, row_optimizer: str) -> None:
    case = replace(SMALL, objective=objective, row_optimizer=row_optimizer)
    made = contender(OURS, case, World(), CPU)
    (weight,) = made.module.parameters()
    before = weight.detach().clone()
    loss = made.step(*random_batch(case, 0, 0, CPU))
    assert torch.isfinite(loss)
    assert not torch.equal(weight, before)
    assert weight.grad is None
    assert made.weight_bytes == 40 * 8 * 4
    moments = 2 if row_optimizer == "adamw" else 1
    assert moments * 40 * 8 * 4 <= made.state_bytes < moments * 40 * 8 * 4 + 512


def test_what_is_asked_for_is_what_is_built() -> None:
    case = replace(
        SMALL, dtype="bfloat16", weight_dtype="bfloat16", momentum=0.0, cosines="keep", gram="never", clip=0.5
    )
    head = contender(OURS, case, World(), CPU).module
    assert isinstance(head, ShardedClassifier)
    assert head.row_optimizer is not None
    assert head.row_optimizer.clip == 0.5
    assert (head.product_dtype, head.cosines, head.gram) == (torch.bfloat16, "keep", "never")
    made = contender(OURS, replace(case, momentum=0.9, state_dtype="bfloat16"), World(), CPU)
    assert made.weight_bytes == 40 * 8 * 2
    assert 40 * 8 * 2 <= made.state_bytes < 40 * 8 * 2 + 512
    assert contender(OURS, case, World(), CPU).state_bytes < 512


def test_without_momentum_nobody_has_a_state() -> None:
    made = contender(DENSE, replace(SMALL, momentum=0.0), World(), CPU)
    made.step(*random_batch(SMALL, 0, 0, CPU))
    assert made.state_bytes == 0


def test_every_contender_and_no_other_rank_or_step_has_the_same_batch() -> None:
    embeddings, labels = random_batch(SMALL, 0, 3, CPU)
    again, labels_again = random_batch(SMALL, 0, 3, CPU)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(6))
    assert embeddings.requires_grad
    assert torch.equal(embeddings, again)
    assert torch.equal(labels, labels_again)
    assert not torch.equal(embeddings, random_batch(SMALL, 1, 3, CPU)[0])
    assert not torch.equal(embeddings, random_batch(SMALL, 0, 4, CPU)[0])


@pytest.mark.parametrize("name", ["Plain", "Field", "Sampled"])
def test_a_foreign_head_is_made_by_either_signature_and_stepped(heads: Path, name: str) -> None:
    loss, before, after = one_step(f"{heads}:{name}", replace(SMALL, against_sample_rate=1.0))
    assert torch.isfinite(loss)
    assert not torch.equal(before, after)


def test_a_foreign_head_is_told_the_rate_it_takes(heads: Path) -> None:
    case = replace(SMALL, sample_rate=0.5, against_sample_rate=0.25)
    for name in ("Field", "Sampled"):
        assert contender(f"{heads}:{name}", case, World(), CPU).module.sample_rate == 0.25
    with pytest.raises(ValueError, match=r"Plain takes no sample_rate: expected a rate of 1, got 0\.25"):
        contender(f"{heads}:Plain", case, World(), CPU)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Missing", "has no torch.nn.Module 'Missing'; it has Plain, Field, Sampled"),
        ("NoModule", "has no torch.nn.Module 'NoModule'"),
        ("Strange", r"takes \(size\).*: expected \(num_classes, embedding_dim\) or \(margin_loss,"),
        ("Pair", "Pair returned tuple: expected the loss, a scalar tensor"),
    ],
)
def test_a_foreign_head_that_does_not_fit_is_told_in_a_line(heads: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        one_step(f"{heads}:{name}", SMALL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--against nothing", "expected 'dense', 'chunked', 'ours' or PATH:CLASS"),
        ("--against nowhere.py:Head", "there is no file 'nowhere.py'"),
        ("--batch 5 --world 2", "expected a multiple of world=2"),
        ("--sample-rate 0", "expected 0 < sample_rate <= 1"),
        ("--steps 0", "steps=0: expected at least 1"),
    ],
)
def test_what_cannot_be_measured_is_told_before_anything_starts(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--objective", "cosface", "--num-classes", "40", *words.split()]) == 2
    assert message in capsys.readouterr().err


def test_the_command_of_a_case_is_the_case() -> None:
    case = replace(
        SMALL, world=2, momentum=0.0, against=DENSE, against_sample_rate=0.1, dtype="bfloat16", cosines="keep"
    )
    words = case.command().split()
    assert words[:3] == ["python", "-m", "benchmarks.classifier"]
    arguments = classifier._parser().parse_args(words[3:])
    assert Case(**{name: getattr(arguments, name) for name in vars(case)}) == case


@pytest.mark.processes
@pytest.mark.usefixtures("_quick_rates")
def test_two_ranks_take_turns_with_two_of_the_dense_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record.json"
    words = "--objective adacos --num-classes 2001 --embedding-dim 64 --batch 32 --world 2 --steps 3 --against dense"
    assert main([*words.split(), "--json", str(path)]) == 0
    record = read_json(path, Record)
    assert record.against is not None
    for measurement in (record.ours, record.against):
        assert len(measurement.seconds) == 3
        assert min(measurement.seconds) > 0
        assert [rank.weight_bytes for rank in measurement.ranks] == [1001 * 64 * 4, 1000 * 64 * 4]
        assert all(rank.peak_bytes > rank.weight_bytes for rank in measurement.ranks)
    said = capsys.readouterr()
    turns = [line.partition(":")[0] for line in said.err.splitlines()]
    assert turns == ["ours", "dense"] * 3
    assert f"times_faster     {record.times_faster:.4g}\n" in said.out
    derived = json.loads(path.read_text())["derived"]
    assert derived["times_faster"] == record.times_faster
    assert derived["ours"]["images_per_second"] == pytest.approx(32 / record.ours.median_seconds)


@pytest.mark.processes
@pytest.mark.usefixtures("_quick_rates")
def test_another_that_lacks_memory_is_struck_off_and_ours_goes_on(heads: Path, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    words = f"--objective p2sgrad --num-classes 2000 --embedding-dim 16 --batch 8 --steps 2 --against {heads}:Hungry"
    assert main([*words.split(), "--json", str(path)]) == 0
    record = read_json(path, Record)
    assert record.against is None
    assert record.against_failure == f"{heads}:Hungry: MemoryError: no room"
    assert len(record.ours.seconds) == 2


@pytest.mark.processes
@pytest.mark.usefixtures("_quick_rates")
def test_a_rank_that_fails_ends_the_run_though_its_neighbour_waits(
    heads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        f"--objective cosface --num-classes 300 --embedding-dim 16 --batch 8 --world 2 --against {heads}:SecondFails"
    )
    assert main([*words.split(), "--json", str(tmp_path / "record.json")]) == 1
    assert capsys.readouterr().err == f"classifier: {heads}:SecondFails: rank 1 has had enough\n"
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_peak_is_the_allocators(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    words = "--objective p2sgrad --num-classes 100000 --device cuda --steps 4 --against dense --json"
    assert main([*words.split(), str(path)]) == 0
    record = read_json(path, Record)
    assert record.against is not None
    assert record.ours.ranks[0].weight_bytes == 100_000 * 512 * 4
    assert record.ours.held_bytes < record.ours.peak_bytes < record.against.peak_bytes


@pytest.mark.processes
def test_ours_over_two_numbers_of_classes_tells_how_the_time_per_class_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--objective p2sgrad --num-classes 400 --embedding-dim 16 --batch 8 --steps 2 --momentum 0"
    path = tmp_path / "record.json"
    both = ["--against", "ours", "--against-num-classes", "100"]
    assert classifier.main([*words.split(), *both, "--json", str(path)]) == 0
    record = read_json(path, Record)
    assert record.against is not None
    assert record.against.held_bytes * 4 == record.ours.held_bytes
    assert record.times_per_class == record.ours.median_seconds / 400 / (record.against.median_seconds / 100)
    assert (record.times_faster, record.share_of_memory) == (None, None)
    assert f"times_per_class  {record.times_per_class:.4g}\n" in capsys.readouterr().out


@pytest.mark.parametrize(("against", "classes"), [("ours", None), ("dense", 100), (None, 100)])
def test_a_number_of_classes_for_the_other_goes_with_ours_alone(against: str | None, classes: int | None) -> None:
    with pytest.raises(
        ValueError, match="expected a number of classes or an objective where against is 'ours', and only there"
    ):
        Case("p2sgrad", 200, against=against, against_num_classes=classes)
