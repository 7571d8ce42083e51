"""A run whose ranks are killed inside a collective and inside a save ends as one that was never disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from benchmarks.chaos.faults import Fault
from benchmarks.chaos.figures import recoveries
from benchmarks.chaos.runs import Run, differing_files

SAVE_EVERY, STEPS = 8, 40
RECORDED = 31, 39  # the save after step 31 is the fourth, and so the first to remove one; its thread goes on after it
COLLECTIVES_OF_A_SAVING_STEP = 15
FAULTS = [
    Fault(1, 10, "inside collective 3"),
    Fault(0, 15, "half of a rank's file"),
    Fault(0, 23, "before latest", "kill all"),
]
pytestmark = pytest.mark.processes


def settings(data: Path) -> tiny.Tree:
    return tiny.tree(
        data,
        Path(),
        data={"evaluate": None, "augmentation": {"mirror": 0.5, "crop": 0.3}},
        backbone={"dropout": 0.2, "width": 8},
        classifier={"momentum": 0.9},
        schedule={"epochs": STEPS / 6},
        save_every_steps=SAVE_EVERY,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("undisturbed"), settings(data), records=RECORDED)
    assert run.trained() == [0], run.said()
    return run


def test_every_collective_of_a_step_and_every_point_of_a_save_is_a_place_of_both_ranks(undisturbed: Run) -> None:
    places = {(event.rank, event.note) for event in undisturbed.file.events() if event.kind == "place"}
    for rank in (0, 1):
        inside = {place for of, place in places if of == rank and place.startswith("inside collective ")}
        assert inside >= {f"inside collective {number}" for number in range(COLLECTIVES_OF_A_SAVING_STEP)}
        own = "the disk check", "the copies", "the fresh folder", "a rank's file", "the sync of a rank's file"
        assert places >= {(rank, f"{side} {point}") for side in ("before", "after") for point in own}
        assert places >= {(rank, f"half of {file}") for file in ("a rank's file", "a rank's note")}
    of_rank_0 = "backbone.pt", "shared.safetensors", "manifest.json", "the new name", "latest", "the pruning"
    assert places >= {(0, f"{side} {point}") for side in ("before", "after") for point in (*of_rank_0, "a removal")}
    assert places >= {(0, f"half of {file}") for file in ("backbone.pt", "shared.safetensors", "manifest.json")}


def test_killed_inside_a_collective_and_inside_a_save_the_run_ends_with_the_same_bits(
    data: Path, tmp_path: Path, undisturbed: Run
) -> None:
    run = Run(tmp_path, settings(data), FAULTS, max_restarts=len(FAULTS))
    assert run.trained() == [0], run.said()
    followed = recoveries(run.file)
    assert [each.fault for each in followed] == FAULTS
    assert run.said().count("going on after step") == len(FAULTS)
    assert all(each.steps_lost <= 2 * SAVE_EVERY for each in followed), "a save that is cut loses its interval too"
    assert followed[0].steps_lost == 10 - 8
    assert differing_files(run.checkpoints, undisturbed.checkpoints) == []
