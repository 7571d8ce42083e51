"""A run measured while it trains: what is told and kept, that the best checkpoint stays, and that training does not
notice."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from test_resume import state_at_end

from data_pipeline.formats.verification_bin.writer import write_bin
from data_pipeline.loader.image_loader import usable_batches
from launch import evaluate as evaluate_command
from launch import train
from launch.config.loading import ConfigError, load_config
from launch.evaluation import embeddings, on_the_way
from launch.evaluation.on_the_way import measures
from partial_fc.checkpoint.layout import whole_checkpoints
from partial_fc.evaluation import evaluate
from partial_fc.world import World, global_rank


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_data(tmp_path_factory.mktemp("data"))
    people = tiny.HELD_OUT
    images = [
        tiny.encoded(people[pair % 5 + 5 * (pair % 2) * end], end + pair // 5) for pair in range(20) for end in (0, 1)
    ]
    write_bin(folder / "some.bin", images, [pair % 2 == 0 for pair in range(20)])
    return folder


def config(data: Path, run_dir: Path, **evaluation: Any) -> Path:
    content = tiny.tree(
        *(data, run_dir),
        schedule={"epochs": 2},  # 12 steps
        checkpoint={"keep_last": 1},
        evaluation=evaluation,
    )
    return tiny.write_config(run_dir.with_suffix(".yaml"), content)


def records(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "evaluations.jsonl").read_text().splitlines()]


def test_every_set_is_measured_told_and_kept(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [str(data / "some.bin")]
    assert train.main([str(config(data, tmp_path / "run", every_steps=5, sets=sets))]) == 0
    told = capsys.readouterr().out
    assert [record["step"] for record in records(tmp_path / "run")] == [5, 10, 12]
    for record in records(tmp_path / "run"):
        assert {"heldout.rank1", "heldout.eer", "some.accuracy", "some.eer"} < record.keys()
    assert told.count("measured in") == 3
    assert f"heldout.rank1 {records(tmp_path / 'run')[0]['heldout.rank1']:.4f}" in told
    final = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert records(tmp_path / "run")[-1]["heldout.rank1"] == final["rank1"]
    assert records(tmp_path / "run")[-1]["heldout.tar_at_far_1e-1"] == final["tar_at_far"]["1e-1"]
    spent = json.loads((tmp_path / "run" / "time_spent.json").read_text())["seconds"]
    assert spent["evaluation"] > 0


def ranks_of(figures: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the evaluations give these figures, one after the other, in place of rank-1."""
    given = iter(figures)
    found = measures

    def told(evaluation: Any) -> dict[str, float]:
        return {**found(evaluation), "rank1": next(given)}

    monkeypatch.setattr(on_the_way, "measures", told)


def test_the_best_checkpoint_is_saved_named_and_never_removed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ranks_of([0.2, 0.7, 0.6, 0.7, 0.1, 0.3], monkeypatch)
    run_dir = tmp_path / "run"
    assert train.main([str(config(data, run_dir, every_steps=2, best="heldout.rank1"))]) == 0
    checkpoints = run_dir / "checkpoints"
    assert (checkpoints / "best").resolve().name == "step-00000004"
    assert [each.path.name for each in whole_checkpoints(checkpoints)] == ["step-00000004", "step-00000012"]
    assert capsys.readouterr().out.count("the best so far") == 2


def test_a_smaller_error_rate_is_the_better_one(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter([0.2, 0.7, 0.1, 0.3])
    monkeypatch.setattr(on_the_way, "measures", lambda evaluation: {"eer": next(given)})
    assert train.main([str(config(data, tmp_path / "run", every_steps=3, best="heldout.eer"))]) == 0
    assert (tmp_path / "run" / "checkpoints" / "best").resolve().name == "step-00000009"


def test_a_run_that_goes_on_knows_what_was_best_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, best = tmp_path / "run", "heldout.rank1"
    path = config(data, run_dir, every_steps=2, best=best)
    with monkeypatch.context() as patch:
        patch.setattr(on_the_way.Examiner, "_keep", _killed_after(on_the_way.Examiner._keep, 1))
        ranks_of([0.9, 0.95], patch)  # after steps 2 and 4
        with pytest.raises(KeyboardInterrupt):
            train.run(load_config(path, []))
    assert (run_dir / "checkpoints" / "best").resolve().name == "step-00000002"
    ranks_of([0.3, 0.5, 0.4, 0.2, 0.1], monkeypatch)  # from step 2 on: 4, 6, ...
    assert train.main([str(path)]) == 0
    assert (run_dir / "checkpoints" / "best").resolve().name == "step-00000002"
    assert [record["step"] for record in records(run_dir)] == [2, 4, 4, 6, 8, 10, 12]


def _killed_after(keep: Any, times: int) -> Any:
    """``keep`` for so many times, then the run is killed, once the save before is whole."""
    left = [times]

    def killed(examiner: Any, done: int) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        keep(examiner, done)
        examiner._parts.saver.wait()

    return killed


def test_what_was_measured_without_a_checkpoint_is_no_best(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`best` may be given only when a run goes on; and a line may be torn by a kill."""
    run_dir = tmp_path / "run"
    path = config(data, run_dir, every_steps=2)
    ranks_of([0.9, 0.9, 0.9, 0.9, 0.9, 0.9], monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("launch.train.write_text", lambda *words: None)
        train.run(load_config(path, ["schedule.epochs=1", "evaluation.every_steps=2"]))
    file = run_dir / "evaluations.jsonl"
    file.write_text(file.read_text() + '{"step": 8, "heldou')
    longer = ["schedule.epochs=2", "resume=changed", "evaluation.best=heldout.rank1"]
    ranks_of([0.3, 0.5, 0.4], monkeypatch)  # after steps 8, 10 and 12
    train.run(load_config(path, longer))
    assert [record["step"] for record in records(run_dir)] == [2, 4, 6, 8, 10, 12]
    assert (run_dir / "checkpoints" / "best").resolve().name == "step-00000006", "0.9, and its checkpoint was there"
    finished = [path.stat().st_mtime_ns for path in sorted((run_dir / "checkpoints").rglob("*.safetensors"))]
    ranks_of([0.99], monkeypatch)
    train.run(load_config(path, longer))  # a run that is done
    assert [path.stat().st_mtime_ns for path in sorted((run_dir / "checkpoints").rglob("*.safetensors"))] == finished


def test_a_stages_last_step_is_measured_and_mirrored_images_count_at_the_end_too(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    stages = '[{"share": 0.5}, {"objective": {"name": "cosface"}}]'
    path = config(data, run_dir, every_steps=3, flip=True)
    train.run(load_config(path, [f"schedule.stages={stages}"]))
    assert [record["step"] for record in records(run_dir)] == [3, 6, 9, 12]
    assert evaluate_command.main([str(run_dir), "--flip", "--out", str(tmp_path / "flip")]) == 0
    mirrored = json.loads((tmp_path / "flip" / "evaluation.json").read_text())["eer"]
    assert records(run_dir)[-1]["heldout.eer"] == mirrored


def test_a_rate_that_few_pairs_cannot_tell_is_said_once(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([str(config(data, tmp_path / "run", every_steps=4, best="heldout.tar_at_far_1e-6"))]) == 0
    assert capsys.readouterr().out.count("too few impostor pairs to tell") == 1


@pytest.mark.processes
def test_training_on_two_ranks_is_bitwise_what_it_is_without(data: Path, tmp_path: Path) -> None:
    states = []
    for name, words in (("without", {}), ("with", {"every_steps": 5})):
        path = config(data, tmp_path / name, **words)
        tiny.processes(2, _trained, str(path))
        states.append(state_at_end(tmp_path / name))
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
    assert [record["step"] for record in records(tmp_path / "with")] == [5, 10, 12]


def _trained(path: str) -> None:
    assert train.main([path]) == 0


@pytest.mark.processes
def test_a_run_told_to_end_while_it_is_measured_saves_at_once_and_is_measured_when_it_goes_on(
    data: Path, tmp_path: Path
) -> None:
    """An evaluation may take longer than a cluster waits before it kills. Of two ranks only one is told here."""
    path, undisturbed = config(data, tmp_path / "run", every_steps=5), config(data, tmp_path / "other", every_steps=5)
    tiny.processes(2, _told_to_end_while_it_is_measured, str(path), 1)
    run_dir = tmp_path / "run"
    assert [each.path.name for each in whole_checkpoints(run_dir / "checkpoints")] == ["step-00000005"]
    assert not (run_dir / "evaluations.jsonl").exists()
    assert (run_dir / "owed_evaluation").read_text() == "5\n"
    for each in (path, undisturbed):
        tiny.processes(2, _trained, str(each))
    assert records(run_dir) == records(tmp_path / "other")
    assert [record["step"] for record in records(run_dir)] == [5, 10, 12]
    assert not (run_dir / "owed_evaluation").exists()
    found, expected = state_at_end(run_dir), state_at_end(tmp_path / "other")
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def _told_to_end_while_it_is_measured(path: str, told_rank: int) -> None:
    is_told, number_read = global_rank() == told_rank, list[int]()

    def told(*source: Any, **options: Any) -> Iterator[Any]:
        for batch in usable_batches(*source, **options):
            number_read.append(len(batch.labels))
            if is_told and len(number_read) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    patch = pytest.MonkeyPatch()
    patch.setattr(embeddings, "EMBED_BATCH", 2)
    patch.setattr(embeddings, "usable_batches", told)
    assert train.main([path]) == 128 + signal.SIGTERM
    assert sum(number_read) == 2 * 8, "of the 40 images of a rank: they agree at every eighth batch"


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"best": "heldout.rank2"}, r"'heldout.rank2' is not measured; expected one of heldout.rank1, heldout.eer"),
        ({"best": "lfw.accuracy"}, r"'lfw.accuracy' is not measured"),
        ({"sets": ["a/lfw.bin", "b/lfw.bin"]}, "two sets are called lfw"),
        ({"sets": ["other/heldout"]}, "one is called heldout, as data.evaluate is"),
        ({"every_steps": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(data: Path, tmp_path: Path, evaluation: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(config(data, tmp_path / "run", **evaluation), [])


def test_without_a_set_there_is_nothing_to_measure(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing can be measured: give"):
        load_config(config(data, tmp_path / "run", every_steps=5), ["data.evaluate=null"])


def test_measures_have_the_names_that_best_takes() -> None:
    rows = torch.nn.functional.normalize(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)))
    found = evaluate(rows, torch.arange(12) // 3, World())
    named = measures(found)
    assert named["rank1"] == found.rank1
    assert named["tar_at_far_1e-1"] == found.tar_at_far["1e-1"]
    assert list(named)[:2] == ["rank1", "eer"]


@pytest.mark.parametrize(
    ("damaged_pairs", "said"),
    [
        (range(2), "some.bin: fold 1 has no pair left"),
        (range(0, 20, 2), "of its pairs with two usable images none is of one identity"),
        (range(1, 20, 2), "of its pairs with two usable images none is of two identities"),
    ],
)
def test_pairs_that_could_not_be_measured_are_refused_before_the_first_step(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged_pairs: range, said: str
) -> None:
    picture = tiny.encoded(tiny.HELD_OUT[0], 0)
    images = [picture[:20] if pair in damaged_pairs else picture for pair in range(20) for _ in range(2)]
    write_bin(tmp_path / "some.bin", images, [pair % 2 == 0 for pair in range(20)])
    assert train.main([str(config(data, tmp_path / "run", every_steps=5, sets=[str(tmp_path / "some.bin")]))]) == 3
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
