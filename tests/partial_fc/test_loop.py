"""The loop by itself: a small network, batches from a list, ranks as threads; no file, no config."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest
import torch
from simulation import on_ranks
from torch import Tensor, nn

from partial_fc import AdaCos, CosineSoftmax, Objective, RowSGD, ShardedClassifier, World
from partial_fc.divergence import STRICT, Tolerance, TrainingDiverged, refuse_spoilt_weights
from partial_fc.loop import train
from partial_fc.reports.meter import Meter
from partial_fc.reports.step_report import RankFigures, StepReport

C, D, SIDE, BATCH = 7, 6, 4, 12


@dataclass
class Batch:
    images: Tensor
    labels: Tensor


@dataclass
class ListSink:
    reports: list[StepReport] = field(default_factory=list)

    def write(self, report: StepReport) -> None:
        self.reports.append(report)

    def close(self) -> None:
        pass


@dataclass
class Run:
    """What one rank's training leaves behind."""

    backbone: nn.Module
    head: ShardedClassifier
    sink: ListSink = field(default_factory=ListSink)
    saved: list[int] = field(default_factory=list)
    rates_used: list[tuple[float, float]] = field(default_factory=list)


class NanFrom(nn.Module):
    """The given network, until a step at which one rank's output turns NaN."""

    def __init__(self, network: nn.Module, step: int, *, here: bool) -> None:
        super().__init__()
        self.network, self.step, self.here, self.calls = network, step, here, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        embeddings: Tensor = self.network(images)
        return embeddings * math.nan if self.here and self.calls > self.step else embeddings


def network() -> nn.Module:
    """The same one in every thread, which the generator that threads share would not give."""
    made = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 16), nn.Tanh(), nn.Linear(16, D)).double()
    generator = torch.Generator().manual_seed(5)
    for parameter in made.parameters():
        nn.init.normal_(parameter, 0.0, 0.15, generator)
    return made


def batches(world: World, stretch: float = 1.0, wait_seconds: float = 0.0) -> Iterator[Batch]:
    """This rank's part of global batches of pictures that lie about their class' own; each comes after a wait."""
    generator = torch.Generator().manual_seed(6)
    centres = torch.randn(C, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
    while True:
        time.sleep(wait_seconds)
        labels_N = torch.randint(C, (BATCH,), generator=generator)
        noise = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
        images_N = stretch * (centres[labels_N] + 0.3 * noise)
        yield Batch(images_N.tensor_split(world.size)[world.rank], labels_N.tensor_split(world.size)[world.rank])


def run(
    world: World,
    steps: int,
    *,
    objective: Callable[[], Objective] = lambda: CosineSoftmax(16.0),
    wrap: Callable[[nn.Module], nn.Module] = lambda backbone: backbone,
    clip_norm: float | None = None,
    report_every: int = 1,
    save_every: int | None = None,
    momentum: float = 0.9,
    stretch: float = 1.0,
    wait_seconds: float = 0.0,
    into: list[Run] | None = None,
    tolerance: Tolerance = STRICT,
    is_save_due: bool = False,
) -> Run:
    """Train; gradients are summed over the ranks as they appear, as DDP's hook does. ``into`` outlives an error."""
    backbone = network()
    for parameter in backbone.parameters():
        parameter.register_hook(world.all_sum)  # type: ignore[no-untyped-call]
    head = ShardedClassifier(C, D, objective(), world=world, row_optimizer=RowSGD(0.02, momentum)).double()
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    made = Run(backbone, head)

    def gather(own_step_seconds: float, data_wait_seconds: float) -> RankFigures:
        seconds = world.all_gather(torch.tensor(own_step_seconds, dtype=torch.float64))
        return RankFigures(tuple(seconds.tolist()), data_wait_seconds, 0, 0)

    if into is not None:
        into.append(made)

    def set_rates(step: int) -> tuple[float, float]:
        rates = 0.1 / (step + 1), 0.02 / (step + 1)
        optimizer.param_groups[0]["lr"] = rates[0]
        assert head.row_optimizer is not None
        head.row_optimizer.learning_rate = rates[1]
        made.rates_used.append(rates)
        return rates

    train(
        range(steps),
        batches=batches(world, stretch, wait_seconds),
        counts=[len(part) for part in torch.arange(BATCH).tensor_split(world.size)],
        backbone=wrap(backbone),
        head=head,
        optimizer=optimizer,
        set_rates=set_rates,
        autocast=nullcontext,
        clip_norm=clip_norm,
        meter=Meter(total_steps=steps, images_per_epoch=4 * BATCH, gather=gather),
        sinks=[made.sink],
        report_every=report_every,
        save=made.saved.append,
        save_every=save_every,
        is_save_due=is_save_due,
        tolerance=tolerance,
    )
    return made


def weights(made: Run) -> list[Tensor]:
    """Everything a step moves: the backbone's, the rows, their momentum."""
    rows = [tensor.detach().clone() for tensor in made.head.state_dict().values() if isinstance(tensor, Tensor)]
    return [parameter.detach().clone() for parameter in made.backbone.parameters()] + rows


def test_the_loss_falls() -> None:
    losses = [report.loss for report in run(World(), 60).sink.reports]
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_train_as_one_does(size: int) -> None:
    one = run(World(), 6, objective=lambda: AdaCos(C))
    ranks = on_ranks(size, lambda world: run(world, 6, objective=lambda: AdaCos(C)))
    for rank in ranks:
        assert [report.loss for report in rank.sink.reports] == [report.loss for report in ranks[0].sink.reports]
        for found, first in zip(rank.backbone.parameters(), ranks[0].backbone.parameters(), strict=True):
            assert torch.equal(found, first)
    for found, expected in zip(ranks[0].backbone.parameters(), one.backbone.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    rows_CD = torch.cat([rank.head.weight.detach() for rank in ranks])
    torch.testing.assert_close(rows_CD, one.head.weight.detach(), rtol=1e-10, atol=1e-12)
    for report, expected_report in zip(ranks[0].sink.reports, one.sink.reports, strict=True):
        assert report.loss == pytest.approx(expected_report.loss, rel=1e-10)


class Watched(nn.Module):
    """The given network, whose third output is NaN; whether the output before was still held at each call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.held = network, list[bool]()
        self.last: Callable[[], Tensor | None] = lambda: None

    def forward(self, images: Tensor) -> Tensor:
        self.held.append(self.last() is not None)
        embeddings: Tensor = self.network(images) * (math.nan if len(self.held) == 3 else 1.0)
        self.last = weakref.ref(embeddings)
        return embeddings


def test_a_skipped_step_holds_no_memory_while_the_next_one_runs() -> None:
    watched: list[Watched] = []

    def wrap(backbone: nn.Module) -> nn.Module:
        watched.append(Watched(backbone))
        return watched[0]

    made = run(World(), 6, wrap=wrap, tolerance=Tolerance(most_skipped=3))
    assert made.sink.reports[-1].skipped_steps == 1
    assert watched[0].held == [False] * 6


def test_a_save_that_is_due_from_the_start_comes_after_the_first_good_step() -> None:
    assert run(World(), 6, save_every=4).saved == [4]
    assert run(World(), 6, save_every=4, is_save_due=True).saved == [1, 4]
    bad_first = [Watched(network())]
    bad_first[0].held += [False] * 2
    made = run(World(), 6, wrap=lambda _: bad_first[0], is_save_due=True, tolerance=Tolerance(most_skipped=3))
    assert made.saved == [2]


@pytest.mark.parametrize("bad_step", [0, 3])
def test_a_loss_that_is_not_finite_stops_all_ranks_before_any_weight_moves(bad_step: int) -> None:
    expected = on_ranks(2, lambda world: weights(run(world, bad_step)) if bad_step else [])

    def diverging(world: World) -> tuple[str, Run]:
        into: list[Run] = []
        with pytest.raises(TrainingDiverged) as stopped:
            run(world, 9, wrap=lambda backbone: NanFrom(backbone, bad_step, here=world.rank == 1), into=into)
        return str(stopped.value), into[0]

    for rank, (message, made) in enumerate(on_ranks(2, diverging)):
        assert f"the loss is nan at step {bad_step} (" in message
        assert "no weight was updated by it" in message
        assert len(made.rates_used) == bad_step + 1, "each rank stopped at the bad step"
        assert [report.step for report in made.sink.reports] == list(range(1, bad_step + 1))
        if bad_step:
            for found, before in zip(weights(made), expected[rank], strict=True):
                assert torch.equal(found, before)


def test_the_backbones_gradient_is_clipped_to_the_norm_of_all_ranks_together() -> None:
    """One step of SGD moves the weights by its learning rate times the clipped gradient."""
    limit = 1e-3

    def moved(world: World) -> float:
        made = run(world, 1, clip_norm=limit)
        steps = [now - before for now, before in zip(made.backbone.parameters(), network().parameters(), strict=True)]
        return float(torch.cat([step.detach().flatten() for step in steps]).norm())

    for size in (1, 2):
        assert on_ranks(size, moved) == pytest.approx([0.1 * limit] * size, rel=1e-4)
    unclipped = run(World(), 1)
    first = next(unclipped.backbone.parameters()) - next(network().parameters())
    assert float(first.detach().norm()) > 0.2 * limit, "without a limit the step is longer, so that clipping was seen"


def test_rates_are_set_once_a_step_and_reported_as_set() -> None:
    made = run(World(), 4)
    assert made.rates_used == [(0.1 / step, 0.02 / step) for step in (1, 2, 3, 4)]
    assert [(r.learning_rate, r.row_learning_rate) for r in made.sink.reports] == made.rates_used


def test_reports_come_every_so_many_steps_and_after_the_last() -> None:
    made = run(World(), 7, report_every=3)
    assert [(r.step, r.interval_steps, r.images) for r in made.sink.reports] == [(3, 3, 36), (6, 3, 72), (7, 1, 84)]
    assert [r.total_steps for r in made.sink.reports] == [7, 7, 7]
    assert [r.step for r in run(World(), 6, report_every=3).sink.reports] == [3, 6]
    assert [r.step for r in run(World(), 2, report_every=50).sink.reports] == [2]


def test_a_report_holds_the_figures_of_its_interval() -> None:
    single = run(World(), 6, objective=lambda: AdaCos(C)).sink.reports
    whole = run(World(), 6, objective=lambda: AdaCos(C), report_every=6).sink.reports[0]
    assert whole.loss == pytest.approx(sum(report.loss for report in single) / 6)
    assert whole.scale == pytest.approx(sum(report.scale or 0.0 for report in single) / 6)
    assert whole.median_target_angle_radians is not None
    assert 0.0 < whole.median_target_angle_radians < math.pi
    assert set(whole.extra) == {"scale_capped"}
    assert 0.0 <= whole.data_wait_seconds < whole.step_seconds
    assert len(whole.step_seconds_of_steps) == 6


def test_the_last_checkpoint_is_left_to_the_caller() -> None:
    assert run(World(), 7, save_every=3).saved == [3, 6]
    assert run(World(), 6, save_every=3).saved == [3]
    assert run(World(), 6).saved == []


def test_a_weight_that_is_not_finite_on_one_rank_stops_all_of_them_before_a_save() -> None:
    def refused(world: World) -> str:
        head = ShardedClassifier(8, 4, CosineSoftmax(10.0), world=world)
        refuse_spoilt_weights(nn.Linear(2, 2), head, 7)
        if world.rank == 1:
            head.weight.data[0, 0] = math.nan
        with pytest.raises(TrainingDiverged) as stopped:
            refuse_spoilt_weights(nn.Linear(2, 2), head, 7)
        return str(stopped.value)

    assert all(message.startswith("weights are not finite after step 7") for message in on_ranks(3, refused))


def test_the_rank_that_holds_the_others_up_is_named_with_what_they_wait_for_it() -> None:
    wait_seconds = 0.2
    ranks = on_ranks(3, lambda world: run(world, 4, report_every=2, wait_seconds=wait_seconds * (world.rank == 1)))
    for interval in range(2):
        reports = [rank.sink.reports[interval] for rank in ranks]
        assert [report.slowest_rank for report in reports] == [1, 1, 1]
        assert reports[1].own_step_seconds >= wait_seconds
        for other in (reports[0], reports[2]):
            assert other.own_step_seconds < 0.5 * wait_seconds < other.step_seconds, "it waits, which is not its own"
            assert 0.5 * wait_seconds < other.slowest_rank_lag_seconds < other.step_seconds
