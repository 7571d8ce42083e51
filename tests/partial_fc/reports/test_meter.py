from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from partial_fc.reports.meter import Meter
from partial_fc.reports.step_report import Phase, RankFigures, StepReport
from partial_fc.reports.time_spent import CAUSES, TimeSpent
from partial_fc.reports.traffic import Traffic


def meter(**options: Any) -> Meter:
    return Meter(**{"total_steps": 100, "images_per_epoch": 320, **options})


def reported(gathered: Meter) -> StepReport:
    return gathered.report(learning_rate=0.1, row_learning_rate=0.2)


class HostReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that hand a tensor's value to the host: on a device, each is a synchronisation."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_report_holds_the_means_of_its_interval_and_the_counts_of_the_run() -> None:
    gathered = meter(step=20, images=640)
    for loss, angle, capped in ((4.0, 1.5, False), (2.0, 1.0, True)):
        gathered.observe(
            images=32,
            loss=torch.tensor(loss, requires_grad=True) * 1.0,
            data_wait_seconds=loss / 8,
            scale=16.0,
            median_target_angle_radians=torch.tensor(angle),
            extra={"scale_capped": torch.tensor(capped)},
        )
    report = reported(gathered)
    assert (report.step, report.images, report.epoch) == (22, 704, 2.2)
    assert (report.interval_steps, report.interval_images) == (2, 64)
    assert (report.loss, report.scale, report.median_target_angle_radians) == (3.0, 16.0, 1.25)
    assert report.extra == {"scale_capped": 0.5}
    assert report.data_wait_seconds == 0.375
    assert report.data_wait_seconds_of_steps == (0.5, 0.25)
    assert (report.learning_rate, report.row_learning_rate) == (0.1, 0.2)
    assert abs(report.timestamp_seconds - time.time()) < 60


def test_an_interval_forgets_the_one_before() -> None:
    gathered = meter()
    for loss in (4.0, 2.0):
        gathered.observe(images=32, loss=loss, scale=1.0, data_wait_seconds=0.0)
        last = reported(gathered)
    gathered.observe(images=16, loss=1.0, data_wait_seconds=0.0)
    assert last.loss == 2.0
    last = reported(gathered)
    assert (last.loss, last.scale, last.interval_images, last.step, last.images) == (1.0, None, 16, 3, 80)


def test_steps_are_timed_from_end_to_end_and_pauses_are_not() -> None:
    begin = time.perf_counter()
    gathered = meter(total_steps=12)
    for _ in range(2):
        time.sleep(0.1)  # a pause
        gathered.start()
        time.sleep(0.02)
        gathered.observe(images=8, loss=0.0, data_wait_seconds=0.0)
    report = reported(gathered)
    elapsed_seconds = time.perf_counter() - begin
    assert min(report.step_seconds_of_steps) >= 0.02
    assert sum(report.step_seconds_of_steps) <= elapsed_seconds - 0.2
    assert report.step_seconds == pytest.approx(sum(report.step_seconds_of_steps) / 2)
    assert report.images_per_second == pytest.approx(8 / report.step_seconds)


def timed(gathered: Meter, *seconds: float) -> StepReport:
    """The report of steps that take so long."""
    for each in seconds:
        time.sleep(each)
        gathered.observe(images=8, loss=0.0, data_wait_seconds=0.0)
    return reported(gathered)


def test_the_time_left_goes_by_the_steps_after_the_first_which_compiles() -> None:
    gathered = meter(total_steps=12)
    first = timed(gathered, 0.1, 0.001, 0.002)
    assert first.step_seconds == pytest.approx(sum(first.step_seconds_of_steps) / 3)
    assert first.seconds_left == pytest.approx(9 * sum(first.step_seconds_of_steps[1:]) / 2)
    later = timed(gathered, 0.004, 0.001)
    assert later.seconds_left == pytest.approx(7 * later.step_seconds)


def test_the_time_left_goes_by_the_first_step_where_no_other_is_known() -> None:
    gathered = meter(total_steps=12)
    alone = timed(gathered, 0.01)
    assert alone.seconds_left == pytest.approx(11 * alone.step_seconds)
    second = timed(gathered, 0.001)
    assert second.seconds_left == pytest.approx(10 * second.step_seconds)


def test_observing_reads_no_tensor_and_reporting_reads_each_figure_once() -> None:
    gathered = meter()
    with HostReads() as reads:  # type: ignore[no-untyped-call]
        for _ in range(5):
            gathered.observe(images=8, loss=torch.tensor(1.0), scale=torch.tensor(16.0), data_wait_seconds=0.0)
        assert reads.count == 0
        reported(gathered)
    assert reads.count == 2


def test_a_buffer_that_changes_after_its_step_does_not_change_the_report() -> None:
    scale = torch.tensor(16.0)
    gathered = meter()
    for _ in range(2):
        gathered.observe(images=8, loss=0.0, scale=scale, data_wait_seconds=0.0)
        scale += 2.0
    assert reported(gathered).scale == 17.0


def test_one_loss_that_is_not_a_number_shows_in_the_interval() -> None:
    gathered = meter()
    for loss in (1.0, math.nan, 1.0):
        gathered.observe(images=8, loss=torch.tensor(loss), data_wait_seconds=0.0)
    assert math.isnan(reported(gathered).loss)


def test_half_precision_figures_add_up_without_loss() -> None:
    gathered = meter()
    for _ in range(1000):
        gathered.observe(images=8, loss=torch.tensor(10.0, dtype=torch.bfloat16), data_wait_seconds=0.0)
    assert reported(gathered).loss == 10.0


def test_bad_images_are_asked_for_once_a_report_and_parted_into_intervals() -> None:
    told = iter([(2, 5), (2, 9), (6, 20)])
    gathered = meter(gather=lambda own, waited: RankFigures((own,), waited, *next(told)))
    found = []
    for _ in range(3):
        gathered.observe(images=8, loss=0.0, data_wait_seconds=0.0)
        gathered.observe(images=8, loss=0.0, data_wait_seconds=0.0)
        report = reported(gathered)
        found.append((report.interval_bad_images_of_rank, report.bad_images))
    assert found == [(2, 5), (0, 9), (4, 20)]


def test_what_a_rank_does_by_itself_is_timed_apart_and_the_first_step_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    gathered = meter()

    def own_step_seconds(*parts: tuple[float, float]) -> float:
        """Of steps that take so long by themselves, and so long with the other ranks."""
        for alone, together in parts:
            clock[0] += alone
            gathered.begin("head")
            clock[0] += together
            gathered.begin("update")
            gathered.observe(images=8, loss=0.0, data_wait_seconds=0.0)
        return reported(gathered).own_step_seconds

    assert own_step_seconds((64.0, 1.0)) == 0, "the first step compiles, each rank as fast as it can"
    assert own_step_seconds((2.0, 8.0), (4.0, 16.0)) == 3
    clock[0] += 100.0  # a pause
    gathered.start()
    assert own_step_seconds((5.0, 1.0)) == 5


def test_a_step_is_parted_into_phases_and_a_skipped_one_has_no_more_than_two(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    traffic = Traffic()
    gathered = meter(traffic=traffic)
    phases: dict[Phase, float] = {"forward": 2.0, "head": 3.0, "backward": 5.0, "update": 7.0}
    skipped: dict[Phase, float] = {"forward": 1.0, "head": 1.0}
    for step in (phases, skipped, phases):
        clock[0] += 11.0  # the wait for data
        for phase, seconds in step.items():
            gathered.begin(phase)
            with traffic.waiting(torch.zeros(4)):
                clock[0] += seconds / 4
            clock[0] += seconds * 3 / 4
        gathered.observe(images=8, loss=0.0, data_wait_seconds=11.0)
    report = reported(gathered)
    assert report.phase_seconds_of_steps == {
        "forward": (2.0, 1.0, 2.0),
        "head": (3.0, 1.0, 3.0),
        "backward": (5.0, 5.0),
        "update": (7.0, 7.0),
        "collective": (4.25, 0.5, 4.25),
    }
    assert report.step_seconds_of_steps == (28.0, 13.0, 28.0)
    assert report.phase_seconds()["update_seconds"] == 7.0
    assert report.interval_collective_bytes_of_rank == 10 * 16
    with traffic.waiting(torch.zeros(4)):
        clock[0] += 100.0  # a save's
    gathered.start()
    gathered.observe(images=8, loss=0.0, data_wait_seconds=0.0)
    report = reported(gathered)
    assert report.phase_seconds_of_steps["collective"] == (0.0,)
    assert report.interval_collective_bytes_of_rank == 16
    assert report.peak_memory_bytes is not None
    assert report.peak_memory_bytes > 1 << 20


def test_the_time_of_a_run_is_booked_to_its_start_its_data_and_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    spent = TimeSpent(990.0)
    gathered = meter(spent=spent, gather=lambda own, waited: RankFigures((own,), waited + 1.0, 0, 0))
    clock[0] += 6.0
    gathered.start()
    for seconds in (100.0, 10.0, 10.0):  # the first compiles
        clock[0] += seconds
        gathered.observe(images=8, loss=0.0, data_wait_seconds=1.5)
    report = reported(gathered)
    assert report.seconds_spent == {
        **dict.fromkeys(CAUSES, 0.0),
        "start": 116.0,
        "training": 16.0,
        "data": 4.0,  # of the rank that waited longest
    }
    assert report.goodput_ratio == 16 / 136
    clock[0] += 10.0
    gathered.observe(images=8, loss=0.0, data_wait_seconds=0.0)
    assert reported(gathered).seconds_spent["training"] == 25.0, "another rank has waited"


@pytest.mark.parametrize(
    ("seconds", "slowest", "lag"),
    [((1.0,), 0, 0.0), ((1.0, 3.0), 1, 2.0), ((1.0, 1.5, 4.0, 1.25), 2, 2.75), ((2.0, 2.0, 2.0), 0, 0.0)],
)
def test_the_slowest_rank_is_compared_with_the_median(seconds: tuple[float, ...], slowest: int, lag: float) -> None:
    report = timed(meter(gather=lambda own, waited: RankFigures(seconds, waited, 0, 0)), 0.0)
    assert (report.slowest_rank, report.slowest_rank_lag_seconds) == (slowest, lag)


def test_a_report_without_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one observed step"):
        reported(meter())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device_the_host_does_not_wait_and_steps_have_the_devices_durations() -> None:
    gathered = meter(device=torch.device("cuda"))
    loss = torch.ones((), device="cuda")
    torch.cuda.synchronize()
    gathered.start()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(4):
            gathered.begin("head")
            torch.cuda._sleep(50_000_000)  # type: ignore[no-untyped-call]  # cycles: tens of milliseconds
            gathered.begin("update")
            gathered.observe(images=8, loss=loss, data_wait_seconds=0.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    report = reported(gathered)
    durations = report.step_seconds_of_steps
    assert max(durations) < 2 * min(durations)
    assert min(durations) > 0.01
    assert report.own_step_seconds < 0.01
