"""A configuration: what is refused and how that is said, what overrides do, and that the resolved one reads back."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from launch import assembly
from launch.config.loading import ConfigError, absolute, load_config, resolved_yaml
from launch.config.objectives import AdaCosSection
from launch.config.run import Config
from partial_fc import RowAdamW, RowSGD
from partial_fc.objectives import OBJECTIVES

LEAST = {"data": {"train": "train.rec"}}


def loaded(folder: Path, tree: dict[str, Any] | str, *overrides: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    return load_config(path, overrides)


def refusal(folder: Path, tree: dict[str, Any] | str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        loaded(folder, tree, *overrides)
    return str(refused.value)


def test_a_config_needs_no_more_than_the_data(tmp_path: Path) -> None:
    config = loaded(tmp_path, LEAST)
    assert config.data.train == Path("train.rec")
    assert isinstance(config.objective, AdaCosSection)
    assert config.data.evaluate is None


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("sead=1", "unknown key 'sead', the nearest is 'seed'"),
        ("backbone.widht=1", "backbone: unknown key 'widht', the nearest is 'width'"),
        ("data.augmentation.rotate=1", "data.augmentation: unknown key 'rotate', the nearest is 'rotate_degrees'"),
        ("objective.max_scal=1", "objective: unknown key 'max_scal', the nearest is 'max_scale'"),
        ("schedule.epoch=1", "schedule: unknown key 'epoch', the nearest is 'epochs'"),
        ("nothing.like.it=1", "unknown key 'nothing', expected one of run_dir, "),
        ("schedule.gradient_acc=2", "schedule: unknown key 'gradient_acc', expected one of warmup_epochs, "),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one_that_exists(tmp_path: Path, key: str, said: str) -> None:
    message = refusal(tmp_path, LEAST, key)
    assert said in message
    assert str(tmp_path / "config.yaml") in message


def test_an_objectives_section_knows_its_own_keys_only(tmp_path: Path) -> None:
    arcface = {**LEAST, "objective": {"name": "arcface", "margn": 0.3}}
    assert "objective: unknown key 'margn', the nearest is 'margin'" in refusal(tmp_path, arcface)
    p2sgrad = {**LEAST, "objective": {"name": "p2sgrad", "scale": 30}}
    assert "objective: unknown key 'scale', the nearest is 'slope_scale'" in refusal(tmp_path, p2sgrad)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, {"seed": -1, "backbone": {"name": "r19"}, "report": {"adress": "x", "porth": 1}})
    for part in ("seed: ", "backbone.name: ", "'data' is missing", "unknown key 'adress'", "unknown key 'porth'"):
        assert part in message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=-1", "seed: Input should be greater than or equal to 0, got -1"),
        (
            "backbone.name=r19",
            "backbone.name: no backbone is called 'r19'; the nearest is 'r18' of r18, r34",
        ),
        ("backbone.drop_path=0.1", "backbone: r50 has no drop_path: leave drop_path out"),
        (
            "objective.name=adaface",
            "objective.name: none is called 'adaface'; the nearest is 'arcface' of cosine_softmax",
        ),
        ("schedule.stages=[{objective: {name: arc}}]", "stage 1: objective.name: none is called 'arc'"),
        ("objective.max_scale=1000", "objective.max_scale: Input should be less than or equal to 80, got 1000"),
        ("objective={name: p2sgrad, kappa: 0}", "objective.kappa: Input should be greater than 0, got 0"),
        ("classifier.sample_rate=0", "classifier.sample_rate: Input should be greater than 0"),
        ("schedule.batch_size=many", "schedule.batch_size: Input should be a valid integer"),
        ("data=5", "data: Input should be a valid dictionary"),
        ("seed", "--set seed: expected KEY=VALUE"),
        ("=3", "--set =3: expected KEY=VALUE"),
        ("data.train.deeper=1", "train is a value, not a section"),
        ("data.train=3", "data.train: expected a path or a list of paths, got 3"),
        ("data.train=[]", "data.train: expected a path or a list of paths, got []"),
        ("data.train=[a.rec, 3]", "data.train: expected a path or a list of paths, got ['a.rec', 3]"),
        ("data.train=", "data.train: expected a path or a list of paths, got None"),
        ("data.join=both", "data.join: Input should be 'offset' or 'merge', got 'both'"),
        ("seed=[1", "'[1' is not a YAML value"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(tmp_path: Path, override: str, said: str) -> None:
    assert said in refusal(tmp_path, LEAST, override)


@pytest.mark.parametrize(
    ("text", "said"),
    [("data: [1", "is not YAML"), ("- 1", "expected sections (key: value), got list"), ("", "'data' is missing")],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_a_config_in_python_is_refused_with_the_command_that_makes_one_of_it(tmp_path: Path) -> None:
    for text in ("config = dict(lr=0.1)\n", "config.rec = 'x'\ndef rate(epoch): return 1\n"):
        (tmp_path / "job.py").write_text(text)
        with pytest.raises(ConfigError, match=r"job\.py: a config is YAML: partial-fc import arcface_torch-config .*"):
            load_config(tmp_path / "job.py")


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the config .*none\.yaml: No such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "train.rec").write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError, match="is not YAML"):
        load_config(tmp_path / "train.rec")


def test_overrides_win_over_the_file_and_the_later_over_the_earlier(tmp_path: Path) -> None:
    tree = {**LEAST, "seed": 1, "schedule": {"epochs": 2, "batch_size": 64}}
    config = loaded(tmp_path, tree, "seed=2", "schedule.epochs=7", "seed=3", "data.evaluate=other.rec")
    assert (config.seed, config.schedule.epochs, config.schedule.batch_size) == (3, 7.0, 64)
    assert config.data.evaluate == Path("other.rec")
    assert config.data.train == Path("train.rec")


def test_the_classifier_builds_the_row_optimizer_it_names(tmp_path: Path) -> None:
    sgd = assembly.row_optimizer(loaded(tmp_path, LEAST, "classifier={momentum: 0.9, weight_decay: 1e-4}").classifier)
    assert isinstance(sgd, RowSGD)
    assert (sgd.momentum, sgd.weight_decay, sgd.state_dtype) == (0.9, 1e-4, torch.float32)
    adamw = loaded(tmp_path, LEAST, "classifier={optimizer: adamw, betas: [0.8, 0.9], state: bfloat16}").classifier
    built = assembly.row_optimizer(adamw)
    assert isinstance(built, RowAdamW)
    assert (built.betas, built.state_dtype) == ((0.8, 0.9), torch.bfloat16)


def test_a_momentum_for_adamw_and_betas_out_of_range_are_refused(tmp_path: Path) -> None:
    assert "momentum is SGD's" in refusal(tmp_path, LEAST, "classifier={optimizer: adamw, momentum: 0.9}")
    assert "expected two numbers in [0, 1)" in refusal(tmp_path, LEAST, "classifier.betas=[0.9, 1.0]")


def test_several_sets_are_a_list_that_reads_back(tmp_path: Path) -> None:
    config = loaded(tmp_path, LEAST, "data.train=[one.rec, two]", "data.join=merge")
    assert config.data.train == (Path("one.rec"), Path("two"))
    assert loaded(tmp_path, resolved_yaml(config)) == config


def test_an_override_can_turn_a_value_off(tmp_path: Path) -> None:
    assert loaded(tmp_path, LEAST).optimizer.clip_norm is not None
    assert loaded(tmp_path, LEAST, "optimizer.clip_norm=null").optimizer.clip_norm is None
    with_set = {"data": {"train": "train.rec", "evaluate": "held.rec"}}
    assert loaded(tmp_path, with_set, "data.evaluate=").data.evaluate is None


@pytest.mark.parametrize("text", ["3e-4", "3.0e-4", "0.0003", "'3e-4'"])
def test_every_way_of_writing_a_number_is_a_number(tmp_path: Path, text: str) -> None:
    """PyYAML reads ``3e-4`` as text, as YAML 1.1 asks for a point."""
    assert loaded(tmp_path, LEAST, f"optimizer.learning_rate={text}").optimizer.learning_rate == 3e-4
    by_file = f"data: {{train: a.rec}}\noptimizer: {{learning_rate: {text}}}\n"
    assert loaded(tmp_path, by_file).optimizer.learning_rate == 3e-4
    config = loaded(tmp_path, LEAST, "objective.name=p2sgrad", f"objective.inter_class_weight={text}")
    assert config.objective.arguments(10)["inter_class_weight"] == 3e-4


NUMBERS = [
    *("inf", "-inf", "nan", ".inf", ".nan", "1e308", "1e999", "-1e999", "1e-320", "0", "-0.0"),
    *(str(2**power) for power in (31, 32, 53, 63, 64, 400)),
    *("9" * 5000, f"-{'9' * 5000}", f"0x{'f' * 5000}", f"'{'9' * 5000}'", "1_000", "0b1", "010", "1:30:00", "~"),
]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:20])
def test_a_number_of_any_size_is_taken_or_refused_in_a_line(tmp_path: Path, number: str) -> None:
    tree = loaded(tmp_path, LEAST).model_dump(mode="json")
    keys = [f"{name}.{key}" for name, section in tree.items() if isinstance(section, dict) for key in section]
    for key in (*keys, "seed", "save_every_steps"):
        said = refused(tmp_path, f"{key}={number}")
        assert len(said) < 2000, key
        assert not said or key.split(".")[-1] in said or "objective" in key, (key, said)
        with contextlib.suppress(ConfigError):
            loaded(tmp_path, f"data: {{train: a.rec}}\nschedule: {{epochs: {number}}}\n")


def refused(folder: Path, override: str) -> str:
    """What is said of an override that is refused; empty where it is taken, and written so that it reads back."""
    try:
        config = loaded(folder, LEAST, override)
    except ConfigError as error:
        return str(error)
    assert loaded(folder, resolved_yaml(config)) == config
    return ""


def test_a_home_folder_is_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    words = ("run_dir=~/run", "data.evaluate=~/b", "data.quarantine=[~/c, d]", "backbone.weights=~/e")
    config = loaded(tmp_path, {"data": {"train": ["~/a", "a/~"]}}, *words)
    assert config.data.train == (Path("/home/ann/a"), Path("a/~"))
    assert config.data.quarantine == (Path("/home/ann/c"), Path("d"))
    assert [config.run_dir, config.data.evaluate, config.backbone.weights] == [Path(f"/home/ann/{x}") for x in RBE]
    assert "there is no such user" in refusal(tmp_path, LEAST, "run_dir=~nobody-of-that-name/run")


RBE = ("run", "b", "e")


def test_every_path_of_a_config_can_be_made_one_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("data.evaluate=b", "data.quarantine=[c, /d]", "backbone.weights=e", "data.train=[a, ../a]")
    made = absolute(loaded(tmp_path, LEAST, *words))
    assert made.data.train == (tmp_path / "a", tmp_path / "../a")
    assert made.data.quarantine == (tmp_path / "c", Path("/d"))
    assert (made.data.evaluate, made.backbone.weights) == (tmp_path / "b", tmp_path / "e")
    assert made.run_dir == tmp_path / "runs" / "partial_fc"
    assert absolute(made) == made == loaded(tmp_path, resolved_yaml(made))


ODD_NAME = os.fsdecode(b"caf\xe9 [red]'\"{x}")  # a byte that is not UTF-8, rich's markup, quotes, YAML's own signs


def test_a_path_may_have_any_bytes(tmp_path: Path) -> None:
    for tree in ({"data": {"train": ODD_NAME}}, os.fsdecode(b'data: {train: "caf\xe9 [red]\'\\"{x}"}')):
        path = tmp_path / "config.yaml"
        path.write_bytes(os.fsencode(tree if isinstance(tree, str) else yaml.safe_dump(tree)))
        config = load_config(path)
        assert config.data.train == Path(ODD_NAME)
        assert loaded(tmp_path, resolved_yaml(config)) == config
    assert load_config(path, ["data.train=" + os.fsdecode(b"/caf\xe9")]).data.train == Path(os.fsdecode(b"/caf\xe9"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_config_may_be_of_any_editor(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "config.yaml").write_text("data: {train: é.rec}\n", encoding=encoding)
    assert load_config(tmp_path / "config.yaml").data.train == Path("é.rec")


def test_a_key_that_stands_twice_is_refused_with_its_lines(tmp_path: Path) -> None:
    text = "optimizer: {learning_rate: 0.01}\ndata:\n  train: a.rec\n  train: b.rec\n"
    assert "the key 'train' stands twice, in lines 3 and 4: keep one of them" in refusal(tmp_path, text)
    text = "optimizer: {learning_rate: 0.01}\ndata: {train: a.rec}\noptimizer: {name: adamw}\n"
    message = refusal(tmp_path, text)
    assert "the key 'optimizer' stands twice, in lines 1 and 3" in message
    assert str(tmp_path / "config.yaml") in message


def test_a_section_left_empty_is_a_section_of_defaults(tmp_path: Path) -> None:
    text = "data: {train: train.rec}\nbackbone:\nobjective: {max_scale: 30}\n"
    config = loaded(tmp_path, text, "backbone.width=8")
    assert config.backbone.width == 8
    assert config.objective == AdaCosSection(max_scale=30.0)
    assert loaded(tmp_path, text).backbone == loaded(tmp_path, LEAST).backbone


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_can_be_asked_for_by_name(tmp_path: Path, name: str) -> None:
    scale = {"scale": 30.0} if name == "cosine_softmax" else {}
    config = loaded(tmp_path, {**LEAST, "objective": {"name": name, **scale}})
    assert type(assembly.objective(config.objective, 1000)) is OBJECTIVES[name]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("objective.name=p2sgrad", "objective.slope_scale=2.0", "save_every_steps=5", "data.evaluate=a b.rec"),
        ("objective.name=arcface", "backbone.compile=true", "backbone.weights=w.pt", "optimizer.clip_norm=null"),
        ("backbone.compile=auto", "optimizer.weight_decay=1e-12", "data.num_classes=12"),
    ],
)
def test_the_resolved_config_reads_back_as_the_same(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    config = loaded(tmp_path, LEAST, *overrides)
    text = resolved_yaml(config)
    assert loaded(tmp_path, text) == config
    assert set(yaml.safe_load(text)) == set(Config.model_fields), "the defaults are written too"


def test_a_config_is_never_changed(tmp_path: Path) -> None:
    config = loaded(tmp_path, LEAST)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 5  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        config.backbone.width = 5  # type: ignore[misc]


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_of_the_project_is_valid(path: Path) -> None:
    assert load_config(path).data.train
