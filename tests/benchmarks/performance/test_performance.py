"""The table of cases, what is measured again, and what is written and drawn from the records."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.classifier.case import DENSE, OURS, Case
from benchmarks.classifier.ceilings import Ceilings, held_bytes, needed_bytes, step_floors
from benchmarks.classifier.records import Footprint, Measurement, Record, read_records
from benchmarks.machine import Machine, this_machine
from benchmarks.performance import __main__ as performance
from benchmarks.performance.cases import CLASSES, cases, over_classes
from benchmarks.performance.plots import lines_of, pictures
from benchmarks.performance.tables import cases_table, machine_part, per_class_table
from benchmarks.results import read_json, sweep, unfinished, write_json

MACHINE = Machine("Some CPU", ["avx2"], 2, 2, 24, "", 0, "Linux 6.1", "3.12.1", "2.13.0", "")
CEILINGS = Ceilings(1e11, 3e11, 3e10)


def record(case: Case, seconds: float = 1.0, other_seconds: float = 10.0, peak: float = 1.1) -> Record:
    """A made-up record: ours peaks at `peak` times what it holds, the other at 5 times that."""
    held = case.num_classes * case.embedding_dim * 8 // case.world

    def measured(name: str, step: float, peak_bytes: float) -> Measurement:
        footprint = Footprint(int(peak_bytes), held // 2, held // 2)
        return Measurement(name, [step, step * 0.9, step * 1.2], 7.0, [footprint] * case.world)

    against = None
    if case.against == OURS:
        against = measured(OURS, case.case_against.num_classes * 5e-6, peak * held)
    elif case.against is not None:
        against = measured(DENSE, other_seconds, 5 * peak * held)
    return Record(
        case=case,
        ours=measured(OURS, seconds, peak * held),
        against=against,
        against_failure=None,
        rates=CEILINGS,
        floors=step_floors(case, CEILINGS),
        machine=MACHINE,
        date="2026-01-02",
    )


def all_records(**settings: float) -> dict[str, Record]:
    return {name: record(case, case.num_classes * 5e-6, **settings) for name, case in cases("cpu").items()}


@pytest.mark.parametrize("device", CLASSES)
def test_every_case_is_of_its_device_and_the_curve_has_points(device: str) -> None:
    assert {case.device for case in cases(device).values()} == {device}
    assert len(over_classes(device)) > 2


@pytest.mark.parametrize("device", CLASSES)
def test_no_two_cases_are_the_same(device: str) -> None:
    planned = list(cases(device).values())
    assert len(set(planned)) == len(planned)


def test_what_the_cpu_cases_are_expected_to_need_fits_24_gib() -> None:
    assert max(needed_bytes(case) for case in cases("cpu").values()) < 20 * 2**30


def test_a_dense_full_step_is_expected_to_need_more_than_its_matrices() -> None:
    dense = Case("cosface", 200_000, batch=1024, against=DENSE)
    alone = replace(dense, against=None)
    assert needed_bytes(dense) - needed_bytes(alone) > 4.53e9
    assert needed_bytes(alone) > held_bytes(alone)


def test_a_record_comes_back_from_its_file(tmp_path: Path) -> None:
    there = record(Case("adacos", 100, world=2, against=DENSE))
    write_json(there.as_json(), tmp_path / "folder" / "one.json")
    assert read_records(tmp_path / "folder") == {"one": there}
    assert (there.times_faster, there.share_of_memory) == (10.0, 0.2)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"case": 1}'])
def test_a_file_that_is_no_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.json").write_text(text)
    with pytest.raises(ValueError, match=r"one\.json is no record"):
        read_json(tmp_path / "one.json", Record)


def test_what_is_there_is_not_measured_again(tmp_path: Path) -> None:
    planned = {"one": Case("adacos", 100), "two": Case("adacos", 200)}
    write_json(record(planned["one"]).as_json(), tmp_path / "one.json")
    settings = {name: asdict(case) for name, case in planned.items()}
    assert unfinished(settings, tmp_path, performance.kept_settings) == ["two"]
    with pytest.raises(ValueError, match=r"one\.json .* \(num_classes is 100 there and 300 here\): remove it"):
        unfinished({"one": asdict(Case("adacos", 300))}, tmp_path, performance.kept_settings)


def test_a_case_too_large_for_the_machine_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(performance, "available_bytes", lambda device: 1e9)
    assert sweep({"huge": Case("p2sgrad", 4_000_000)}, tmp_path, performance.recorded) == 0
    assert "left out: it may need 20.5 GB, and 1.0 are free" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.device_count() > 6, reason="needs fewer GPUs than 7")
def test_a_case_of_more_gpus_than_there_are_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep({"wide": Case("p2sgrad", 100, device="cuda", batch=7, world=7)}, tmp_path, performance.recorded) == 0
    assert "left out: world=7 on cuda: this machine has" in capsys.readouterr().out


@pytest.mark.processes
def test_a_measured_case_is_kept_and_written_into_the_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"small": Case("p2sgrad", 300, embedding_dim=16, batch=8, steps=2)}
    monkeypatch.setattr(performance, "cases", lambda device: small)
    monkeypatch.setattr("benchmarks.classifier.ceilings.MATRIX_SIZE", {"cpu": 64})
    (tmp_path / "performance.md").write_text("prose\n<!-- performance -->\n<!-- /performance -->\n")
    assert performance.main(["--docs", str(tmp_path)]) == 0
    kept = tmp_path / "performance" / this_machine("cpu").name / "small.json"
    assert read_json(kept, Record).case == small["small"]
    assert f"performance/{kept.parent.name}/small.json" in (tmp_path / "performance.md").read_text()
    assert performance.main(["--docs", str(tmp_path), "--list"]) == 0
    assert "0 of 1 to do" in capsys.readouterr().out


# Tables and pictures


def test_a_case_that_was_not_measured_has_no_row() -> None:
    some = {"cosface-r1-dense": all_records()["cosface-r1-dense"]}
    assert per_class_table(some).count("\n") == 1


def test_every_table_has_as_many_cells_in_every_row() -> None:
    failed = replace(record(Case("adacos", 100, against=DENSE)), against=None, against_failure="dense: killed")
    records = {**all_records(), "failed": failed}
    assert "out of memory" in cases_table(records)
    for text in (per_class_table(records), cases_table(records)):
        assert len({line.count("|") for line in text.splitlines()}) == 1


def test_the_machine_is_described_from_its_newest_record() -> None:
    text = machine_part(all_records(), ["performance/some/rate.svg"])
    assert text.startswith(
        "### Some CPU, 2 cores\n\n2 cores of Some CPU (avx2), 24 GiB of memory, 2 threads, Linux 6.1"
    )
    assert "did 100 GFLOP/s in float32, 300 in bfloat16, and moved 30 GB/s" in text
    assert "![rate](performance/some/rate.svg)" in text


def test_a_machine_has_a_name_for_a_folder() -> None:
    assert MACHINE.name == "some-cpu-2-cores"
    assert replace(MACHINE, gpu="NVIDIA H100 80GB HBM3", gpus=8).name == "8-nvidia-h100-80gb-hbm3"
    assert this_machine("cpu").cores >= 1


@pytest.mark.parametrize("device", CLASSES)
def test_every_picture_has_a_line_of_ours_and_one_of_the_dense_model(device: str) -> None:
    records = [record(case) for case in cases(device).values()]
    for picture in pictures(device):
        lines = lines_of(picture, records)
        assert {label.startswith("dense") for label in lines} == {True, False}
        assert all(len(points) >= 2 for points in lines.values())
        assert all(list(points) == sorted(points) for points in lines.values())


def test_the_document_is_written_from_the_records_alone_and_the_same_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "performance" / MACHINE.name
    for name, one in all_records().items():
        write_json(one.as_json(), folder / f"{name}.json")
    document = tmp_path / "performance.md"
    document.write_text("before\n<!-- performance -->\nold\n<!-- /performance -->\nafter\n")
    performance.write_document(tmp_path)
    text = document.read_text()
    assert text.startswith("before\n<!-- performance -->\n### Some CPU, 2 cores")
    assert text.endswith("<!-- /performance -->\nafter\n")
    drawn = {path.name: path.read_bytes() for path in folder.glob("*.svg")}
    assert drawn.keys() == {"classes.svg", "batch.svg", "rate.svg"}
    assert all(f"performance/{MACHINE.name}/{name}" in text for name in drawn)
    performance.write_document(tmp_path)
    assert document.read_text() == text
    assert {path.name: path.read_bytes() for path in folder.glob("*.svg")} == drawn


# The GPU's script


def test_the_tests_leave_all_they_say_in_a_file(tmp_path: Path) -> None:
    log = tmp_path / "machine" / "tests.txt"
    command = (sys.executable, "-c", "import sys; print('told'); print('and warned', file=sys.stderr); sys.exit(3)")
    assert gpu.exit_code_of_tests(log, "a machine", command) == 3
    assert log.read_text().startswith("a machine\n-c import sys")
    assert {"told", "and warned"} <= set(log.read_text().splitlines())


def test_tests_that_hang_are_stopped_and_leave_what_they_said(tmp_path: Path) -> None:
    log = tmp_path / "tests.txt"
    command = (sys.executable, "-S", "-c", "import time; print('told', flush=True); time.sleep(60)")
    assert gpu.exit_code_of_tests(log, "a machine", command, limit_seconds=1.0) == gpu.TIMED_OUT
    assert log.read_text().endswith("told\nstopped after 1 s\n")


def test_the_quick_cases_are_cases() -> None:
    assert set(gpu.QUICK) <= cases("cuda").keys()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_without_a_gpu_its_script_and_its_cases_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--docs", str(tmp_path)]) == 2
    assert performance.main(["--device", "cuda", "--docs", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("this machine has no CUDA device") == 2
    assert list(tmp_path.iterdir()) == []


def test_cpu_and_gpu_have_the_same_kinds_of_cases() -> None:
    assert len(cases("cuda")) >= len(cases("cpu")) - 1
