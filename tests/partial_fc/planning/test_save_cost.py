"""What a save is planned to cost, against the files and the copies of real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from simulation import on_ranks

from partial_fc import AdaCos, RowAdamW, RowOptimizer, RowSGD, ShardedClassifier, World
from partial_fc.backbones import backbone
from partial_fc.checkpoint.layout import CheckpointFolder, latest_checkpoint
from partial_fc.checkpoint.saving import Saver
from partial_fc.checkpoint.training_state import TrainingState
from partial_fc.planning.backbone_cost import BackboneCost
from partial_fc.planning.head_cost import HeadCost
from partial_fc.planning.planned_head import HeadSpec
from partial_fc.planning.rates import H100
from partial_fc.planning.save_cost import SaveCost, save_cost

C, D = 5003, 128
ROWS: dict[str, Callable[[], RowOptimizer]] = {
    "momentum": partial(RowSGD, 0.1, momentum=0.9),
    "adamw": partial(RowAdamW, 0.1, state_dtype=torch.bfloat16),
}


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("rows", ROWS)
def test_a_save_is_planned_to_the_bytes_that_it_copies_and_writes(tmp_path: Path, rows: str, ranks: int) -> None:
    def saved(world: World) -> int:
        net = backbone("r18", width=8, embedding_dim=D, input_size=32)
        head = ShardedClassifier(C, D, AdaCos(C), world=world, row_optimizer=ROWS[rows]())
        optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        saver = Saver(tmp_path, TrainingState(net, head, optimizer, world), {})
        saver.save(1)
        copied = saver.copy_bytes()
        saver.wait()
        return copied

    copied = max(on_ranks(ranks, saved))
    written = sum(facts.size_bytes for facts in CheckpointFolder(latest_checkpoint(tmp_path)).manifest().files.values())
    planned = _planned(ROWS[rows], ranks)
    assert planned.checkpoint_bytes == pytest.approx(written, rel=0.03)
    assert planned.rank_bytes == pytest.approx(copied - (1 << 20), rel=0.03)


def test_a_copy_takes_the_rate_of_copies_and_writing_that_of_the_disk_where_it_is_known() -> None:
    planned = _planned(ROWS["momentum"], 16)
    assert planned.pause_seconds(replace(H100, copy_bytes=1e6)) == planned.rank_bytes / 1e6
    assert planned.writing_seconds(H100) is None
    assert planned.writing_seconds(replace(H100, disk_bytes=1e6)) == planned.machine_bytes / 1e6
    assert planned.rank_bytes < planned.machine_bytes < planned.checkpoint_bytes, "two machines of 8"


def _planned(rows: Callable[[], RowOptimizer], ranks: int) -> SaveCost:
    network = partial(backbone, "r18", width=8, embedding_dim=D, input_size=32)
    return save_cost(
        HeadCost(HeadSpec(D, AdaCos, rows, on_gpu=False)), C, BackboneCost(network, 32, None), 1, ranks, H100
    )
