"""A run watched: by a file of reports that grows, by real endpoints, and what a terminal shows of it."""

from __future__ import annotations

import io
import math
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from prometheus_client import CollectorRegistry, Counter, start_http_server
from rich.console import Console

from launch.config.loading import ConfigError
from launch.run_files import Owner, RunFiles
from launch.watching.course import Course, Record, shown_figures, text_of
from launch.watching.endpoints import NoAnswer, WatchedEndpoints, metrics_url
from launch.watching.folder import WatchedFolder
from launch.watching.view import BLOCKS, View, sparkline
from partial_fc.reports.json_lines import JsonLinesSink, json_record
from partial_fc.reports.prometheus import PrometheusSink
from partial_fc.reports.step_report import StepReport

NOW_SECONDS = 1.75e9


def report(step: int = 20, **figures: Any) -> StepReport:
    values: dict[str, Any] = {
        "step": step,
        "total_steps": 400,
        "epoch": step / 40,
        "images": 64 * step,
        "interval_steps": 10,
        "interval_images": 640,
        "images_per_second": 320.0,
        "step_seconds": 0.2,
        "data_wait_seconds": 0.05,
        "loss": 8.0 - step / 100,
        "median_target_angle_radians": math.pi / 3,
        "learning_rate": 0.1,
        "row_learning_rate": 0.05,
        "own_step_seconds": 0.05,
        "slowest_rank": 1,
        "slowest_rank_lag_seconds": 0.02,
        "seconds_left": 0.2 * (400 - step),
        "timestamp_seconds": NOW_SECONDS - 80 + 0.2 * step,
        "extra": {"near_per_image": 12.5},
    }
    return StepReport(**{**values, **figures})


def screen(course: Course, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    console.print(View(course, NOW_SECONDS))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def steps(course: Course) -> list[float]:
    return [record["step"] for record in course.records]


# By the folder


@pytest.fixture
def files(tmp_path: Path) -> RunFiles:
    """Of a run that this process is writing."""
    made = RunFiles(tmp_path / "run")
    made.path.mkdir()
    made.lock.write_text(str(Owner.this_process()))
    return made


def test_reports_are_followed_as_they_are_written(files: RunFiles) -> None:
    watched = WatchedFolder(files.path)
    assert "no report yet" in screen(watched.course())
    with closing(JsonLinesSink(files.metrics)) as sink:
        for step in (10, 20, 30):
            sink.write(report(step))
            assert steps(watched.course()) == list(range(10, step + 1, 10))


def test_a_line_in_the_writing_is_waited_for(files: RunFiles) -> None:
    with closing(JsonLinesSink(files.metrics)) as sink:
        sink.write(report(10))
        sink.write(report(20))
    whole, watched = files.metrics.read_bytes(), WatchedFolder(files.path)
    for length in range(0, len(whole) + 1, 7):
        files.metrics.write_bytes(whole[:length])
        assert len(watched.course().records) == whole[:length].count(b"\n")


def test_steps_that_a_resumed_run_does_again_count_once(files: RunFiles) -> None:
    watched = WatchedFolder(files.path)
    with closing(JsonLinesSink(files.metrics)) as sink:
        for step in (10, 20, 30):
            sink.write(report(step))
        assert steps(watched.course()) == [10, 20, 30]
        sink.write(report(15, loss=1.5))
        sink.write(report(25))
    course = watched.course()
    assert steps(course) == steps(WatchedFolder(files.path).course()) == [10, 15, 25]
    assert course.records[1]["loss"] == 1.5


def test_a_run_that_is_begun_anew_in_the_folder_is_another(files: RunFiles) -> None:
    watched = WatchedFolder(files.path)
    with closing(JsonLinesSink(files.metrics)) as sink:
        sink.write(report(10))
        sink.write(report(20))
    assert steps(watched.course()) == [10, 20]
    files.metrics.rename(files.path / "aside.jsonl")
    with closing(JsonLinesSink(files.metrics)) as sink:
        sink.write(report(5))
    assert steps(watched.course()) == [5]


def test_of_a_long_file_the_end_is_read(files: RunFiles) -> None:
    with closing(JsonLinesSink(files.metrics)) as sink:
        for step in range(1, 4001):
            sink.write(report(step, total_steps=4000))
    assert files.metrics.stat().st_size > 1.5 * 2**20
    assert steps(WatchedFolder(files.path).course()) == list(range(3001, 4001))


def test_a_loss_that_is_not_finite_is_said_to_be(files: RunFiles) -> None:
    with closing(JsonLinesSink(files.metrics)) as sink:
        sink.write(report(loss=math.nan, skipped_steps=3, scale=None))
    shown = screen(WatchedFolder(files.path).course())
    assert "loss             " in shown
    assert "not finite" in shown
    assert "scale" not in shown, "an objective without one"


def test_the_end_of_a_run_is_said(files: RunFiles) -> None:
    with closing(JsonLinesSink(files.metrics)) as sink:
        sink.write(report(390))
        watched = WatchedFolder(files.path)
        assert watched.course().note == ""
        files.lock.write_text(str(Owner(ended_process(), socket.gethostname())))
        assert "ended before its last step" in watched.course().note
        files.lock.unlink()
        assert "ended before its last step" in screen(watched.course())
        assert not watched.course().is_over, "the same command goes on with it"
        files.lock.write_text("process 1 on another-host")
        sink.write(report(400))
        course = watched.course()
        assert (course.note, course.is_over) == ("all steps are done; the run saves or is evaluated", False)
    files.lock.unlink()
    assert (watched.course().note, watched.course().is_over) == ("the run has ended: all steps are done", True)


def ended_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_another_users_process_is_there() -> None:
    assert not Owner(1, socket.gethostname()).is_gone()
    assert not Owner(os.getpid(), socket.gethostname()).is_gone()


@pytest.mark.parametrize("line", ["x", "[1]", "{}", '{"step": 3}', '{"step": "a", "step_seconds": 1}'])
def test_a_file_of_something_else_is_refused(files: RunFiles, line: str) -> None:
    files.metrics.write_text(f"{line}\n")
    with pytest.raises(ValueError, match="has a line that is no report"):
        WatchedFolder(files.path).course()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", Path(__file__)):
        with pytest.raises(ValueError, match="is no run: expected the folder of one"):
            WatchedFolder(path)


# By the endpoints


def endpoint(**options: Any) -> PrometheusSink:
    facts: dict[str, Any] = {"version": "0.1.0", "objective": "p2sgrad", "num_classes": 85742, "world_size": 2}
    return PrometheusSink(**{"run": "faces", "port": 0, **facts, **options})


@pytest.fixture
def ranks() -> Iterator[list[PrometheusSink]]:
    sinks = [endpoint(), endpoint()]
    yield sinks
    with ThreadPoolExecutor() as threads:  # each takes half a second
        list(threads.map(PrometheusSink.close, sinks))


def addresses(ranks: list[PrometheusSink]) -> list[str]:
    return [f"127.0.0.1:{sink.port}" for sink in ranks]


def test_an_endpoint_shows_what_the_file_of_reports_shows() -> None:
    with closing(endpoint(world_size=1)) as sink:
        told = report(scale=12.0, skipped_steps=2, bad_images=3, interval_bad_images_of_rank=3)
        sink.write(told)
        [record] = WatchedEndpoints([f"http://127.0.0.1:{sink.port}/metrics"]).course().records
    of_file: Record = {key: value for key, value in json_record(told).items() if value is not None}
    keys = {figure.key for figure in shown_figures(of_file)} | {"step", "total_steps", "stage", "epoch", "seconds_left"}
    assert len(keys) > 15
    assert {key: record.get(key) for key in keys} == pytest.approx({key: of_file[key] for key in keys})
    assert record["data_wait_ratio"] == pytest.approx(0.25)


def test_rates_are_those_between_two_reports(ranks: list[PrometheusSink]) -> None:
    watched = WatchedEndpoints(addresses(ranks))
    for sink in ranks:
        sink.write(report(10, step_seconds=1.0))
    assert watched.course().records[-1]["step_seconds"] == pytest.approx(1.0)
    assert len(watched.course().records) == 1, "no report since"
    for sink in ranks:
        sink.write(report(20, step_seconds=0.2, step_seconds_of_steps=(0.1,) * 5 + (0.3,) * 5))
    for _ in range(2):  # and they stay until the next report
        last = watched.course().records[-1]
        assert last["step"] == 20
        assert last["step_seconds"] == pytest.approx(0.2)
        assert last["images_per_second"] == pytest.approx(320), "of both ranks"
    assert watched.course().records[-1]["data_wait_ratio"] == pytest.approx(0.25)


def test_one_rank_tells_the_pace_of_all(ranks: list[PrometheusSink]) -> None:
    ranks[1].write(report())
    course = WatchedEndpoints(addresses(ranks[1:])).course()
    assert course.records[-1]["images_per_second"] == pytest.approx(320)
    assert course.facts == ["p2sgrad", "85,742 classes", "2 ranks"]
    assert not course.ranks, "a table of one would say the same again"


def test_ranks_are_told_apart(ranks: list[PrometheusSink]) -> None:
    ranks[0].write(report(interval_bad_images_of_rank=2))
    ranks[1].write(report(interval_bad_images_of_rank=3, data_wait_seconds=0.1, own_step_seconds=0.125))
    ranks[0].saved(timestamp_seconds=NOW_SECONDS - 50, writing_seconds=1.0, pause_seconds=0.1)
    course = WatchedEndpoints(addresses(ranks)).course()
    assert course.records[-1]["bad_images"] == 5
    assert course.records[-1]["data_wait_ratio"] == pytest.approx(0.5), "all wait for the rank that waits most"
    assert "checkpoint 50 s old" in screen(course)
    row = next(line.split() for line in screen(course).splitlines() if line.startswith(addresses(ranks)[1]))
    assert row[1:] == ["20", "160", "200", "ms", "125", "ms", "50.0", "%", "3"]


def test_a_rank_that_does_not_answer_is_shown_as_such(ranks: list[PrometheusSink]) -> None:
    ranks[0].write(report())
    gone = f"127.0.0.1:{free_port()}"
    shown = screen(WatchedEndpoints([gone, *addresses(ranks)[:1]]).course())
    assert any(line.startswith(gone) and "no answer" in line for line in shown.splitlines())
    assert "step 20/400" in shown


@pytest.mark.parametrize(
    ("last_step", "left", "note", "is_over"),
    [
        (400, 0.0, "all steps are done", True),
        (390, 3600.0, "the run has ended, or is out of reach", False),
        (390, 0.1, "the run was to end by now", True),
    ],
)
def test_endpoints_that_fall_silent_end_the_run_when_it_had_its_time(
    last_step: int, left: float, note: str, is_over: bool
) -> None:
    sink = endpoint()
    watched = WatchedEndpoints([f"127.0.0.1:{sink.port}"])
    assert "no report yet" in screen(watched.course())
    sink.write(report(last_step, seconds_left=left, timestamp_seconds=time.time() - 1))
    assert watched.course().note == ""
    sink.close()
    course = watched.course()
    assert (note in course.note, course.is_over, steps(course)) == (True, is_over, [last_step])


def test_a_process_that_was_started_again_counts_from_zero() -> None:
    first = endpoint(world_size=1)
    watched = WatchedEndpoints([f"127.0.0.1:{first.port}"])
    for step in (10, 20, 30):
        first.write(report(step))
        watched.course()
    first.close()
    assert "no endpoint answers" in watched.course().note
    with closing(endpoint(world_size=1, port=first.port, restarts=1)) as again:
        again.write(report(25, step_seconds=0.5))
        course = watched.course()
    assert (steps(course), course.note) == ([10, 20, 25], "")
    assert course.records[-1]["step_seconds"] == pytest.approx(0.5)


def test_endpoints_of_two_runs_are_refused(ranks: list[PrometheusSink]) -> None:
    with closing(endpoint(run="other")) as other, pytest.raises(ValueError, match="of several runs, faces, other"):
        WatchedEndpoints(addresses([ranks[0], other])).course()


def test_an_endpoint_of_something_else_is_refused() -> None:
    registry = CollectorRegistry()
    Counter("requests", "Of a server.", registry=registry)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        with pytest.raises(ValueError, match="not as a training of partial-fc"):
            WatchedEndpoints([f"127.0.0.1:{server.server_port}"]).course()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_nothing_that_answers_is_an_error_at_the_start() -> None:
    with pytest.raises(NoAnswer, match=r"does not answer .*A training answers from its start"):
        WatchedEndpoints([f"127.0.0.1:{free_port()}"]).course()


def test_an_address_may_be_short() -> None:
    assert metrics_url("node-3:9410") == metrics_url("http://node-3:9410/") == "http://node-3:9410/metrics"
    assert metrics_url("https://proxy/rank/3") == "https://proxy/rank/3"
    for address in ("ftp://node:21/x", "http://", "node:99999", "http://[::1"):
        with pytest.raises(ConfigError, match="expected an endpoint such as"):
            metrics_url(address)


# On the screen


def course_of(*reports: StepReport, **facts: Any) -> Course:
    records = [{key: float(value) for key, value in json_record(each).items() if value is not None} for each in reports]
    return Course(run="runs/faces", records=records, **facts)


def test_the_screen_shows_where_the_run_is_and_what_it_does() -> None:
    lines = screen(course_of(report(10), report(20), facts=["p2sgrad"])).splitlines()
    assert lines[0] == "runs/faces  p2sgrad"
    assert lines[1].startswith("step 20/400")
    assert lines[1].endswith("5.0 %  0:01:16 left")
    assert lines[2] == "stage 1  epoch 0.50  last report 76 s ago, which is late"
    text = " ".join(" ".join(lines).split())
    for part in ("images/s 320", "loss 7.8000", "target angle 60.0 deg", "near classes 12.5", "its lag 20 ms"):
        assert part in text, part


def test_a_figure_that_no_table_knows_is_shown_by_its_name() -> None:
    shown = screen(course_of(report(extra={"spare_memory_bytes": 2.0**30, "kept_ratio": 0.9612})))
    assert "spare memory" in shown
    assert "1.00 GiB" in shown
    assert "kept" in shown
    assert "96.1 %" in shown
    assert "near classes" not in shown


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    reports = [report(step, total_steps=40_000_000) for step in range(10, 3000, 10)]
    shown = screen(course_of(*reports, facts=["p2sgrad, then adacos", "1,000,000 classes"]), width)
    assert max(len(line) for line in shown.splitlines()) <= width
    assert any(line.startswith("loss") and set(BLOCKS) <= set(line) for line in shown.splitlines()) == (width >= 80)


def test_a_sparkline_goes_from_the_least_to_the_largest() -> None:
    assert sparkline(list(range(8)), 20) == BLOCKS
    assert sparkline([9.0, 0.0, math.nan, 1.0], 3) == "▁ █"
    assert sparkline([5.0, 5.0, 5.0], 8) == "▁▁▁"
    assert sparkline([math.nan, math.inf], 8) == "  "
    assert sparkline([1.0], 8) == ""


def test_units_stand_in_the_names() -> None:
    said = {
        ("step_seconds", 0.25): "250 ms",
        ("its_lag_seconds", 0.0): "0 s",
        ("collective_bytes", 2048.0): "2.00 KiB",
        ("angle_radians", math.pi): "180.0 deg",
        ("data_wait_ratio", 0.031): "3.1 %",
        ("skipped_steps", 12345.0): "12,345",
        ("learning_rate", 0.18264): "0.1826",
        ("gradient_norm", math.inf): "not finite",
    }
    assert {case: text_of(*case) for case in said} == said
