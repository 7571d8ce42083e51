from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from simulation import on_ranks

from launch.assembly.rank_figures import gathered_figures
from partial_fc import World
from partial_fc.reports.step_report import RankFigures

CPU = torch.device("cpu")


class Counted(NamedTuple):
    images: int
    replaced: int


def figures(world: World, *, replaced: tuple[int, ...], most_share: float = 0.01) -> RankFigures:
    counted = Counted(1000, replaced[world.rank])
    seconds, waited = 0.25 + world.rank, 8.0 - world.rank
    return gathered_figures(seconds, waited, counted=counted, most_share=most_share, world=world, device=CPU)


def test_every_rank_hears_of_all_ranks_seconds_longest_wait_and_bad_images() -> None:
    found = on_ranks(3, lambda world: figures(world, replaced=(4, 0, 5)))
    assert found == [RankFigures((0.25, 1.25, 2.25), 8.0, own, 9) for own in (4, 0, 5)]
    assert figures(World(), replaced=(4,)) == RankFigures((0.25,), 8.0, 4, 4)


def test_too_many_bad_images_end_the_run_on_all_ranks_alike() -> None:
    def refused(world: World) -> str:
        with pytest.raises(ValueError, match=r"31 of 3,000 images could not be used \(1 %\)") as error:
            figures(world, replaced=(31, 0, 0))
        return str(error.value)

    assert len(set(on_ranks(3, refused))) == 1
    assert figures(World(), replaced=(10,), most_share=0.001).bad_images == 10, "ten are no number to go by"
    with pytest.raises(ValueError, match=r"1 of 1,000 .*data\.most_bad_images allows 0 %"):
        figures(World(), replaced=(1,), most_share=0.0)
