from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from partial_fc.reports.json_lines import JsonLinesSink, json_record
from partial_fc.reports.step_report import Sink, StepReport
from partial_fc.reports.terminal import TerminalSink, figures_line


def report(**figures: Any) -> StepReport:
    values: dict[str, Any] = {
        "step": 100,
        "total_steps": 400,
        "epoch": 0.5,
        "images": 25600,
        "interval_steps": 10,
        "interval_images": 2560,
        "images_per_second": 1234.5,
        "step_seconds": 0.2,
        "data_wait_seconds": 0.01,
        "loss": 8.76543,
        "scale": 20.5,
        "median_target_angle_radians": math.pi / 3,
        "learning_rate": 0.1,
        "row_learning_rate": 0.05,
        "seconds_left": 3723.4,
        "timestamp_seconds": 1.7e9,
    }
    return StepReport(**{**values, **figures})


def lines(path: Path) -> list[dict[str, Any]]:
    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_how_many_classes_are_near_an_image_is_told() -> None:
    assert "angle 60.0 deg  33.4 near classes  left" in figures_line(report(extra={"near_per_image": 33.41}))


def test_a_scale_at_its_cap_is_told() -> None:
    assert "  scale 20.50 (at its cap)  angle" in figures_line(report(extra={"scale_capped": 0.1}))
    assert "  scale 20.50  angle" in figures_line(report(extra={"scale_capped": 0.0}))


def test_the_line_says_what_a_person_watches() -> None:
    assert figures_line(report()) == "1,234 images/s  loss 8.7654  scale 20.50  angle 60.0 deg  left 1:02:03"


def test_the_line_leaves_out_what_the_objective_has_not() -> None:
    without = report(scale=None, median_target_angle_radians=None, seconds_left=math.inf)
    assert figures_line(without) == "1,234 images/s  loss 8.7654  left unknown"


def test_bad_images_are_told_once_there_are_some() -> None:
    assert "angle 60.0 deg  1,200 bad images  left 1:02:03" in figures_line(report(bad_images=1200))
    record = json_record(report(bad_images=1200, interval_bad_images_of_rank=7))
    assert record["bad_images"] == 1200
    assert "interval_bad_images_of_rank" not in record


def test_a_rank_that_costs_a_tenth_of_each_step_is_named_where_it_did_so_before() -> None:
    slow, other = (report(slowest_rank=rank, slowest_rank_lag_seconds=0.0213, own_step_seconds=0.1) for rank in (3, 2))
    hardly = report(slowest_rank=3, slowest_rank_lag_seconds=0.0199)
    assert "angle 60.0 deg  rank 3 is slow by 0.021 s a step  left 1:02:03" in figures_line(slow, slow)
    for now, earlier in ((slow, None), (slow, other), (slow, hardly), (hardly, slow)):
        assert "slow" not in figures_line(now, earlier)
    stream = io.StringIO()
    sink = TerminalSink(Console(file=stream))
    for each in (slow, slow, other):
        sink.write(each)
    assert ["slow" in line for line in stream.getvalue().splitlines()] == [False, True, False]
    record = json_record(slow)
    assert (record["slowest_rank"], record["slowest_rank_lag_seconds"]) == (3, 0.0213)
    assert "own_step_seconds" not in record, "that of rank 0 alone"


def test_extra_figures_may_not_hide_a_field_nor_be_no_name() -> None:
    assert report(extra={"scale_capped": 1.0}).extra["scale_capped"] == 1.0
    for name in ("loss", "Scale", "a-b", ""):
        with pytest.raises(ValueError, match="snake_case names that no field of StepReport has"):
            report(extra={name: 1.0})


def test_the_record_holds_every_figure_and_no_single_steps() -> None:
    record = json_record(report(extra={"scale_capped": 0.25}, step_seconds_of_steps=(0.1, 0.3)))
    assert record["step"] == 100
    assert record["scale_capped"] == 0.25
    assert record["median_target_angle_radians"] == math.pi / 3
    assert not [name for name in record if name.endswith("of_steps") or name == "extra"]


def test_what_is_not_finite_is_null_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run" / "log.jsonl"
    sink = JsonLinesSink(path)
    sink.write(report(loss=math.nan, seconds_left=math.inf, scale=None, extra={"push": -math.inf}))
    sink.close()
    (line,) = lines(path)
    assert [line[name] for name in ("loss", "seconds_left", "scale", "push")] == [None] * 4
    assert line["images"] == 25600


def test_each_line_is_in_the_file_before_the_next_is_written(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    sink = JsonLinesSink(path)
    for count in (1, 2, 3):
        sink.write(report(step=count))
        assert [line["step"] for line in lines(path)] == list(range(1, count + 1))
    sink.close()
    sink.close()


@pytest.mark.parametrize("kept_bytes", [1, 9, 20, -1])
def test_a_line_torn_by_a_kill_is_gone_when_the_run_goes_on(tmp_path: Path, kept_bytes: int) -> None:
    path = tmp_path / "log.jsonl"
    first = JsonLinesSink(path)
    first.write(report(step=1))
    first.close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:kept_bytes])
    again = JsonLinesSink(path)
    assert path.read_bytes() == whole
    again.write(report(step=2))
    again.close()
    assert [line["step"] for line in lines(path)] == [1, 2]


def test_a_first_line_torn_by_a_kill_leaves_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "tot')
    JsonLinesSink(path).close()
    assert path.read_bytes() == b""


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("first line\nno end")
    with pytest.raises(ValueError, match=r"notes\.txt ends in a line that is no report's"):
        JsonLinesSink(path)
    assert path.read_text() == "first line\nno end"


def test_a_stream_that_is_no_terminal_gets_one_plain_line_per_report() -> None:
    stream = io.StringIO()
    sink: Sink = TerminalSink(Console(file=stream))
    sink.write(report())
    sink.write(report(step=110))
    sink.close()
    first, second = stream.getvalue().splitlines()
    assert first == f"step 100/400  {figures_line(report())}"
    assert second.startswith("step 110/400")


def test_an_ascii_only_log_takes_the_lines() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    TerminalSink(Console(file=stream)).write(report())
    assert raw.getvalue().startswith(b"step 100/400")


def test_a_terminal_gets_one_line_that_is_drawn_anew() -> None:
    stream = io.StringIO()
    sink = TerminalSink(Console(file=stream, force_terminal=True, width=140, color_system=None))
    sink.write(report())
    sink.write(report(step=200, loss=1.5))
    sink.close()
    drawn = stream.getvalue()
    assert "step 100/400" in drawn
    assert "step 200/400" in drawn
    assert "1,234 images/s  loss 1.5000  scale 20.50  angle 60.0 deg  left 1:02:03" in drawn
    assert drawn.count("\n") == 1  # only close moves the cursor below the line


def test_a_terminal_closed_before_the_first_report_shows_nothing() -> None:
    stream = io.StringIO()
    TerminalSink(Console(file=stream, force_terminal=True)).close()
    assert stream.getvalue() == ""
