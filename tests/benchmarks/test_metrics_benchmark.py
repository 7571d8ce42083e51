"""The benchmark of the figures' cost runs, and compares them with a step."""

from __future__ import annotations

import pytest

from benchmarks import metrics


def test_the_cost_of_the_figures_is_told_beside_a_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "REPORTS", 5)
    monkeypatch.setattr(metrics, "STEPS", 1)
    monkeypatch.setattr(metrics, "BATCH", 16)
    monkeypatch.setattr(metrics, "MOST_SHARE", 1.0)
    assert metrics.main([]) == 0
    assert "µs a step, a report every 20: " in capsys.readouterr().out
    monkeypatch.setattr(metrics, "MOST_SHARE", 0.0)
    assert metrics.main([]) == 1
