"""What TensorBoard's own reader finds in the event files."""

from __future__ import annotations

import builtins
import math
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_report import report

from partial_fc.reports.step_report import Sink
from partial_fc.reports.tensorboard import TensorBoardSink


def test_every_figure_is_a_scalar_over_the_step(tmp_path: Path) -> None:
    sink: Sink = TensorBoardSink(tmp_path / "events")
    sink.write(report(step=100, extra={"scale_capped": 0.5}))
    sink.write(report(step=200, loss=math.nan, scale=None))
    sink.close()
    found = EventAccumulator(str(tmp_path / "events")).Reload()
    figures = {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    assert figures["loss"] == [(100, pytest.approx(8.76543))]
    assert figures["scale"] == [(100, 20.5)]
    assert figures["scale_capped"] == [(100, 0.5)]
    assert [step for step, _ in figures["images_per_second"]] == [100, 200]
    assert not {"step", "timestamp_seconds"} & figures.keys()
    assert found.Scalars("loss")[0].wall_time == 1.7e9


def test_without_the_package_the_refusal_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "torch.utils.tensorboard":
            raise ImportError("No module named 'tensorboard'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        TensorBoardSink(tmp_path)
