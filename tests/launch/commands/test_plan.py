"""``partial-fc plan`` as users meet it: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from launch import assembly, cli
from launch.config.loading import ConfigError, load_config
from launch.planning import device_rates
from launch.planning.rates import measured_rates, read_rates, write_rates
from launch.units import bytes_text, parsed_bytes, seconds_text
from partial_fc.planning.rates import H100

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tree = tiny.tree(tmp_path / "nowhere", tmp_path / "run", data={"num_classes": 5000, "num_images": 90_000})
    return tiny.write_config(tmp_path / "config.yaml", tree)


def test_a_plan_needs_no_apex(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_apex = ["backbone.name=vit_t", "backbone.layer_norm=apex", "optimizer.name=apex_lamb"]
    words = [word for setting in of_apex for word in ("--set", setting)]
    assert cli.main(["plan", str(config), *words, "--gpus", "2", "--gpu-memory", "80GiB"]) == 0
    assert "backbone optimizer state" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("80GiB", 80 << 30),
        ("80 gib", 80 << 30),
        ("0.5TiB", 1 << 39),
        ("24GB", 24 * 10**9),
        (".5KiB", 512),
        ("7B", 7),
        ("1048576", 1 << 20),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str, number: int) -> None:
    assert parsed_bytes(text) == number


@pytest.mark.parametrize("text", ["", "GiB", "80 giga", "-1GiB", "80GiB/s", "1e3", "1,5GiB", "0.2B", "0"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"80GiB|at least one byte"):
        parsed_bytes(text)


def test_sizes_and_durations_are_said_in_fitting_units() -> None:
    assert [bytes_text(number) for number in (5, 2048, 80 << 30)] == ["5 B", "2.00 KiB", "80.00 GiB"]
    assert [seconds_text(number) for number in (2e-6, 0.0123, 75.0, 36000.0)] == ["2 µs", "12.3 ms", "1.25 min", "10 h"]


def test_a_plan_is_printed_and_written_for_programs_and_as_a_picture(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = tmp_path / "out" / "plan.json", tmp_path / "out" / "plan.svg"
    words = ["plan", str(config), "--gpus", "6", "--set", "schedule.batch_size=48"]
    assert cli.main([*words, "--json", str(out), "--picture", str(picture)]) == 0
    printed = capsys.readouterr().out
    for part in ("memory of each of 6 GPUs, 48 images", "class rows", "reduce-scatter", "fits in 80.00 GiB", "epoch"):
        assert part in printed
    assert not set("━┃│╇") & set(printed), "no terminal: plain characters"
    plan = json.loads(out.read_text())
    assert [one["gpus"] for one in plan["plans"]] == [1, 2, 4, 6, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert [one["batch"] for one in plan["plans"]][:4] == [8, 16, 32, 48]
    for one in plan["plans"]:
        assert one["total_bytes"] == sum(one["memory_bytes"].values())
        assert one["memory_bytes"]["class rows"] == -(-5000 // one["gpus"]) * 16 * 4
    assert picture.read_text().lstrip().startswith("<?xml")


def test_a_plan_says_what_a_save_takes_and_how_long(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates, out = tmp_path / "rates.json", tmp_path / "plan.json"
    rates.write_text('{"copy_bytes": 1e9, "disk_bytes": 1e8}')
    words = ["plan", str(config), "--fixed-batch", "--set", "schedule.batch_size=4"]  # 1 and 2 GPUs
    assert cli.main([*words, "--gpus", "2", "--rates", str(rates), "--json", str(out)]) == 0
    printed, save = " ".join(capsys.readouterr().out.split()), json.loads(out.read_text())["plans"][1]["save"]
    assert "a save of 2 GPUs" in printed
    for number, seconds in ((save["rank_bytes"], save["rank_bytes"] / 1e9), (save["checkpoint_bytes"], None)):
        assert bytes_text(number) in printed
        assert seconds is None or seconds_text(seconds) in printed
    assert seconds_text(save["machine_bytes"] / 1e8) in printed
    assert "1 GB/s into the host's memory, 0.1 GB/s onto a disk" in printed
    assert cli.main([*words, "--gpus", "2", "--set", "checkpoint.in_background=false"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "host memory of rank 0, in parts | 16." in printed
    assert "no rate of the disk is known" in printed


def test_a_plan_has_the_memory_of_the_stage_that_needs_most_and_the_times_of_all(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def plan(*words: str) -> Any:
        out = tmp_path / "plan.json"
        assert cli.main(["plan", str(config), "--fixed-batch", "--device", "cpu", "--json", str(out), *words]) == 0
        return json.loads(out.read_text())["plans"][0]

    sampled, whole = ("classifier.sample_rate=0.1", "objective.name=cosface"), ("objective.name=arcface",)
    alone = [plan(*(word for each in words for word in ("--set", each))) for words in (sampled, whole)]
    assert alone[0]["total_bytes"] < alone[1]["total_bytes"]
    stages = "[{share: 0.75}, {objective: {name: arcface}, classifier: {sample_rate: 1.0}}]"
    capsys.readouterr()
    staged = plan(*(word for each in (*sampled, f"schedule.stages={stages}") for word in ("--set", each)))
    printed = capsys.readouterr().out
    assert staged["memory_bytes"] == alone[1]["memory_bytes"]
    assert staged["most_classes"] == min(each["most_classes"] for each in alone)
    assert [stage["time"] for stage in staged["stages"]] == [each["time"] for each in alone]
    assert [stage["total_bytes"] for stage in staged["stages"]] == [each["total_bytes"] for each in alone]
    mean_seconds = 0.75 * alone[0]["step_seconds"] + 0.25 * alone[1]["step_seconds"]
    assert staged["step_seconds"] == pytest.approx(mean_seconds)
    for part in ("cosface, then arcface, 5,000 classes", "the stages of the run, 8 GPUs", "1 cosface", "2 arcface"):
        assert part in printed


def test_a_fixed_batch_ends_where_a_gpu_would_get_fewer_than_two_images(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    assert cli.main(["plan", str(config), "--fixed-batch", "--gpus", "2", "--json", str(out)]) == 0
    plans = json.loads(out.read_text())["plans"]
    assert [(one["gpus"], one["batch"]) for one in plans] == [(1, 16), (2, 16), (4, 16), (8, 16)]


def test_what_does_not_fit_is_said(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(config), "--gpu-memory", "4100MiB", "--num-classes", "1_000_000_000"]) == 0
    assert "DOES NOT FIT in 4.00 GiB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "100"], "BatchNorm needs two images on each of 100 GPUs"),
        (["--num-classes", "2"], "expected at least 3"),
        (["--set", "objective={name: p2sgrad, negatives: beyond_chance}"], "expected more than"),
        (["--picture", "plan.gif"], ".svg, .png, .pdf"),
        (["--rates", "nowhere.json"], "cannot read the rates"),
        (["--set", "data.num_classes=null"], "give data.num_classes or --num-classes"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_a_line(
    config: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", str(config), *words]) == 2
    assert said in capsys.readouterr().err


def test_a_size_without_a_unit_that_exists_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", str(config), "--gpu-memory", "80 giga"])
    assert ended.value.code == 2
    assert "'80 giga' is no size" in capsys.readouterr().err


def test_the_data_says_how_many_classes_where_it_is_there(tmp_path: Path) -> None:
    data, out = tiny.write_data(tmp_path / "data"), tmp_path / "plan.json"
    config = tiny.write_config(tmp_path / "config.yaml", tiny.tree(data, tmp_path / "run"))
    assert cli.main(["plan", str(config), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["num_classes"] == len(tiny.TRAINED)


def test_rates_are_read_as_they_were_written_and_missing_ones_assumed(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text('{"memory_bytes": 1e12, "ranks_per_machine": 4}')
    rates = read_rates(path, H100)
    assert (rates.memory_bytes, rates.ranks_per_machine, rates.link_bytes) == (1e12, 4, H100.link_bytes)
    for known in (rates, replace(rates, disk_bytes=1e9)):
        write_rates(path, known)
        assert read_rates(path, H100) == known


@pytest.mark.parametrize(
    "text", ["[1]", "{", '{"speed": 1}', '{"memory_bytes": 0}', '{"memory_bytes": "1"}', '{"ranks_per_machine": 1.5}']
)
def test_what_is_no_rate_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"rates\.json"):
        read_rates(path, H100)


def test_this_machine_has_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.planning.device_rates.MEASURING_SECONDS", 0.0)
    monkeypatch.setitem(device_rates.STREAM_BYTES, "cpu", 1 << 20)
    precision = torch.get_float32_matmul_precision()
    rates = measured_rates(torch.device("cpu"), H100, matrix_size=64)
    assert rates.tf32_operations >= rates.float32_operations > 0
    assert rates.copy_bytes not in (0, H100.copy_bytes)
    assert rates.float32_operations != H100.float32_operations
    assert (rates.link_bytes, rates.latency_seconds) == (H100.link_bytes, H100.latency_seconds)
    assert torch.get_float32_matmul_precision() == precision


def test_the_config_of_webface42m_is_one() -> None:
    config = load_config(CONFIGS / "webface42m.yaml")
    assert (config.data.num_classes, config.data.num_images) == (2_059_906, 42_474_557)
    assert config.schedule.batch_size == 8 * 128
    assert assembly.objective(config.objective, 2_059_906) is not None
