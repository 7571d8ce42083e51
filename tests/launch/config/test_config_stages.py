"""``schedule.stages``: how long each is, what holds in it, how it is named, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.config.loading import ConfigError, absolute, load_config, resolved_yaml
from launch.config.run import Config
from launch.config.stages import (
    objectives_in_words,
    stage_after,
    stage_at,
    stage_configs,
    stage_in_words,
    stage_names,
    stages_of,
)

LVFACE: list[dict[str, Any]] = [
    {"share": 0.6, "objective": {"name": "cosface"}, "classifier": {"sample_rate": 0.1}},
    {"share": 0.2, "objective": {"name": "arcface", "margin": 0.3}, "optimizer": {"learning_rate": 0.02}},
    {"classifier": {"sample_rate": 1.0, "learning_rate": 0.001}, "augmentation": {"mirror": 0.5, "blur": 0.1}},
]


def loaded(folder: Path, stages: Any, *overrides: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"data": {"train": "train.rec"}, "schedule": {"epochs": 10, "stages": stages}}))
    return load_config(path, overrides)


def refusal(folder: Path, stages: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        loaded(folder, stages)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_a_run_without_stages_is_one_stage_of_its_own_config(tmp_path: Path) -> None:
    config = loaded(tmp_path, None)
    (stage,) = stages_of(config, 7)
    assert (stage.number, stage.first_step, stage.stop_step, stage.config) == (1, 0, 7, config)


@pytest.mark.parametrize(
    ("lengths", "total_steps", "first_steps"),
    [
        ([{"share": 0.5}, {"share": 0.5}], 101, [0, 50]),
        ([{"epochs": 7.5}, {}], 3615, [0, 2711]),
        ([{}, {"epochs": 2.5}], 100, [0, 75]),
        ([{"share": 0.1}, {"epochs": 4}, {"share": 0.5}], 1000, [0, 100, 500]),
        ([{"share": 0.333}, {"share": 0.333}, {"share": 0.333}], 900, [0, 300, 599]),
        ([{"share": 0.2}, {}, {"share": 0.2}], 5, [0, 1, 4]),
        ([{"epochs": 10}], 5, [0]),
        ([{}], 5, [0]),
    ],
)
def test_stages_follow_one_another_to_the_end_of_the_run(
    tmp_path: Path, lengths: Any, total_steps: int, first_steps: list[int]
) -> None:
    stages = stages_of(loaded(tmp_path, lengths), total_steps)
    assert [stage.number for stage in stages] == list(range(1, len(lengths) + 1))
    assert [stage.first_step for stage in stages] == first_steps
    assert [stage.stop_step for stage in stages] == [*first_steps[1:], total_steps]
    for step in range(total_steps):
        assert step in range(stage_at(stages, step).first_step, stage_at(stages, step).stop_step)
        assert stage_after(stages, step + 1) is stage_at(stages, step), "a checkpoint at a stage's end is that stage's"
    assert stage_after(stages, 0) is stages[0]
    assert stage_after(stages, 10 * total_steps) is stages[-1]


def test_what_a_stage_changes_holds_in_those_after_it(tmp_path: Path) -> None:
    config = loaded(tmp_path, LVFACE, "classifier.momentum=0.9")
    configs = stage_configs(config)
    assert [each.objective.name for each in configs] == ["cosface", "arcface", "arcface"]
    assert [each.classifier.sample_rate for each in configs] == [0.1, 0.1, 1.0]
    assert [each.classifier.learning_rate for each in configs] == [0.005, 0.005, 0.001]
    assert [each.optimizer.learning_rate for each in configs] == [0.1, 0.02, 0.02]
    assert [each.data.augmentation.blur for each in configs] == [0.0, 0.0, 0.1]
    assert {each.classifier.momentum for each in configs} == {0.9}
    for each in configs:
        assert each.schedule.stages is None, "a stage's config is that of a run without stages"
        assert each.schedule.epochs == 10
        assert each.data.train == config.data.train


def test_a_limit_of_the_rows_gradient_goes_on_until_a_stage_takes_it_away(tmp_path: Path) -> None:
    stages = [{"share": 0.5}, {"share": 0.25, "classifier": {"sample_rate": 0.5}}, {"classifier": {"clip": 0}}]
    config = loaded(tmp_path, stages, "classifier.clip=0.5")
    assert [each.classifier.clip for each in stage_configs(absolute(config))] == [0.5, 0.5, 0.0]
    assert "classifier.clip 0 (was 0.5)" in stage_in_words(stages_of(config, 100), 3)


def test_stages_are_named_by_what_they_change(tmp_path: Path) -> None:
    config = loaded(tmp_path, LVFACE)
    assert objectives_in_words(config) == "cosface, then arcface"
    assert stage_names(config) == ["cosface", "arcface", "all classes"]
    assert stage_names(loaded(tmp_path, [{"share": 0.5}, {"classifier": {"sample_rate": 0.1}}]))[1] == (
        "10 % of the classes"
    )
    assert stage_names(loaded(tmp_path, [{"share": 0.5}, {}])) == ["adacos", "stage 2"]
    stages = stages_of(config, 5000)
    assert [stage_in_words(stages, number) for number in (1, 2, 3)] == [
        "stage 1 of 3 from step 1: objective cosface, classifier.sample_rate 0.1, classifier.learning_rate 0.005, "
        "optimizer.learning_rate 0.1, data.augmentation.blur 0",
        "stage 2 of 3 from step 3,001: objective arcface (was cosface), optimizer.learning_rate 0.02 (was 0.1)",
        "stage 3 of 3 from step 4,001: classifier.sample_rate 1 (was 0.1), classifier.learning_rate 0.001 (was 0.005), "
        "data.augmentation.blur 0.1 (was 0)",
    ]
    idle = stages_of(loaded(tmp_path, [{"share": 0.5}, {}]), 10)
    assert stage_in_words(idle, 2) == "stage 2 of 2 from step 6: nothing changes"


def test_the_stages_of_the_documentation_are_some(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "schedule.md").read_text()
    schedules = [yaml.safe_load(text)["schedule"] for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    configs = [loaded(tmp_path, each.get("stages"), f"schedule.epochs={each['epochs']}") for each in schedules]
    assert [objectives_in_words(config) for config in configs] == [
        "adacos",
        "p2sgrad, then adacos",
        "cosface, then arcface",
    ]
    assert [stage.first_step for stage in stages_of(configs[2], 3000)] == [0, 1500, 2500]


def test_stages_read_back_from_the_resolved_config(tmp_path: Path) -> None:
    config = loaded(tmp_path, LVFACE)
    (tmp_path / "resolved.yaml").write_text(resolved_yaml(config))
    assert load_config(tmp_path / "resolved.yaml") == config
    assert loaded(tmp_path, None, "schedule.stages=[{share: 0.5}, {}]").schedule.stages is not None


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (
            [{"share": 0.75}, {"share": 0.5}],
            "schedule: stages: they add up to 12.5 epochs and the run has 10; leave out",
        ),
        ([{"share": 0.4}, {"epochs": 5}], "schedule: stages: they add up to 9 epochs and the run has 10"),
        ([{"epochs": 10}, {}], "schedule: stages: the others leave nothing of 10 epochs to the one without a length"),
        ([{}, {}], "schedule: stages: 2 of them have neither share nor epochs; one may, and takes what is left"),
        ([{"share": 0.5, "epochs": 5}, {}], "schedule.stages, stage 1: give share or epochs, not both"),
        ([{"share": 1.0}], "schedule.stages, stage 1: share: Input should be less than 1, got 1.0"),
        ([{"epochs": 0}, {}], "schedule.stages, stage 1: epochs: Input should be greater than 0, got 0"),
        ([], "schedule.stages: Tuple should have at least 1 item"),
        (3, "schedule.stages: Input should be a valid tuple, got 3"),
        ([{"share": 0.5}, {"objectiv": {}}], "stage 2: unknown key 'objectiv', the nearest is 'objective'"),
        (
            [{"share": 0.5}, {"classifier": {"momentum": 0.9}}],
            "stage 2: classifier: unknown key 'momentum', expected one of",
        ),
        ([{"share": 0.5}, {"optimizer": {"name": "adamw"}}], "stage 2: optimizer: unknown key 'name', expected one of"),
        ([{"share": 0.5}, {"classifier": {"sample_rate": 2}}], "stage 2: classifier.sample_rate: Input should be less"),
        (
            [{"share": 0.5}, {"augmentation": {"mirro": 1}}],
            "stage 2: augmentation: unknown key 'mirro', the nearest is",
        ),
        ([{"share": 0.5}, {"objective": {"margin": 0.3}}], "stage 2: objective: expected the objective's name beside"),
        (
            [{"share": 0.5}, {"objective": {"name": "arc"}}],
            "stage 2: objective.name: none is called 'arc'; the nearest is 'arcface' of",
        ),
        (
            [{"share": 0.5}, {"objective": {"name": "arcface", "margin": 9}}],
            "schedule.stages, stage 2: objective.margin: Input should be less than 1.57",
        ),
    ],
)
def test_stages_that_are_none_are_refused_in_a_line(tmp_path: Path, stages: Any, said: str) -> None:
    assert said in refusal(tmp_path, stages)


def test_a_stage_too_short_to_have_a_step_is_refused(tmp_path: Path) -> None:
    for lengths, number in (
        ([{"share": 0.04}, {}], 1),
        ([{"share": 0.5}, {"share": 0.01}, {}], 2),
        ([{}, {"share": 0.04}], 2),
    ):
        with pytest.raises(
            ConfigError, match=f"stage {number} of {len(lengths)} is too short to have a step, of the 10"
        ):
            stages_of(loaded(tmp_path, lengths), 10)
