"""arcface_torch's configs in YAML: every key has a place, a comment, or is said to be unread; nothing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.config.arcface_torch import TRANSLATED, TWINS, GoingOn, translated_config
from launch.config.loading import ConfigError, load_config
from launch.config.run import Config

BASE = """
from easydict import EasyDict as edict

config = edict()
config.margin_list = (1.0, 0.5, 0.0)
config.network = "r50"
config.resume = False
config.save_all_states = False
config.output = "ms1mv3_arcface_r50"
config.embedding_size = 512
config.sample_rate = 1
config.interclass_filtering_threshold = 0
config.fp16 = False
config.batch_size = 128
config.optimizer = "sgd"
config.lr = 0.1
config.momentum = 0.9
config.weight_decay = 5e-4
config.verbose = 2000
config.frequent = 10
config.dali = False
config.dali_aug = False
config.gradient_acc = 1
config.seed = 2048
config.num_workers = 2
config.wandb_key = "0123456789abcdef"
config.suffix_run_name = None
config.using_wandb = False
config.wandb_entity = "entity"
config.wandb_project = "project"
config.wandb_log_all = True
config.save_artifacts = False
config.wandb_resume = False
"""
JOB = """
from easydict import EasyDict as edict
config = edict()
config.margin_list = (1.0, 0.0, 0.4)
config.network = "vit_b_dp005_mask_005"
config.resume = False
config.output = None
config.embedding_size = 512
config.sample_rate = 0.3
config.fp16 = True
config.weight_decay = 0.1
config.batch_size = 384
config.optimizer = "adamw"
config.lr = 0.001
config.verbose = 2000
config.dali = False
config.rec = "/train_tmp/WebFace42M"
config.num_classes = 2059906
config.num_image = 42474557
config.num_epoch = 40
config.warmup_epoch = config.num_epoch // 10
config.val_targets = ["lfw"]
"""


def translated(folder: Path, job: str, base: str | None = BASE, gpus: int = 8) -> tuple[Config, list[str]]:
    """The configuration, as our own reader takes it, and the comments."""
    if base is not None:
        (folder / "base.py").write_text(base)
    (folder / "job.py").write_text(job)
    text = translated_config(folder / "job.py", gpus)
    (folder / "ours.yaml").write_text(text)
    comments = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("#")]
    return load_config(folder / "ours.yaml"), comments


def least(*lines: str) -> str:
    return "\n".join(["config = edict()", "config.rec = 'data'", "config.num_epoch = 20", *lines])


def test_a_published_recipe_has_its_numbers_here(tmp_path: Path) -> None:
    config, _ = translated(tmp_path, JOB, gpus=64)
    assert config == Config.model_validate(
        {
            "run_dir": "work_dirs/job",
            "seed": 2048,
            "data": {
                "train": "/train_tmp/WebFace42M",
                "num_classes": 2059906,
                "num_images": 42474557,
                "decode_threads": 2,
            },
            "backbone": {
                "name": "vit_b",
                "drop_path": 0.05,
                "mask_ratio": 0.05,
                "checkpoint_activations": True,
                "autocast": "bfloat16",
            },
            "objective": {"name": "cosface", "scale": 64.0, "margin": 0.4},
            "classifier": {"sample_rate": 0.3, "optimizer": "adamw", "learning_rate": 0.001},
            "optimizer": {"name": "adamw", "learning_rate": 0.001, "weight_decay": 0.1, "decays": "all"},
            "schedule": {"epochs": 40, "warmup_epochs": 4, "batch_size": 64 * 384, "power": 1.0},
            "report": {"every_steps": 10},
            "evaluation": {"every_steps": 2000, "sets": ["/train_tmp/WebFace42M/lfw.bin"], "flip": True},
        }
    )


def test_every_key_of_base_has_a_place_or_a_comment(tmp_path: Path) -> None:
    plain, _ = translated(tmp_path, least())
    _, comments = translated(tmp_path, least(), BASE.replace("dali_aug = False", "dali_aug = True"))
    placed = {  # changed in base.py, each of these changes the configuration
        "margin_list": "(1.0, 0.0, 0.4)",
        "network": "'r100'",
        "output": "'elsewhere'",
        "embedding_size": "256",
        "sample_rate": "0.1",
        "interclass_filtering_threshold": "0.4",
        "fp16": "True",
        "batch_size": "64",
        "optimizer": "'adamw'",
        "lr": "0.2",
        "weight_decay": "0.1",
        "frequent": "20",
        "dali_aug": "True",
        "gradient_acc": "4",
        "seed": "1",
        "num_workers": "4",
    }
    for key, value in placed.items():
        assert translated(tmp_path, least(f"config.{key} = {value}"))[0] != plain, key
    keys = [line.split(" = ")[0].removeprefix("config.") for line in BASE.splitlines() if line.startswith("config.")]
    for key in set(keys) - set(placed) - {"momentum"}:
        assert any(comment.startswith(f"{key} = ") for comment in comments), key


def test_the_key_of_an_account_is_not_copied(tmp_path: Path) -> None:
    job = least("if True: config.wandb_key = 'fedcba'")
    _, comments = translated(tmp_path, job)
    assert (
        "wandb_key = ...: not Weights & Biases but metrics.jsonl, Prometheus, report.tensorboard and report.html"
        in comments
    )
    assert "0123456789abcdef" not in " ".join(comments)
    assert "fedcba" not in " ".join(comments)


@pytest.mark.parametrize(
    ("lines", "objective"),
    [
        (["config.margin_list = (1.0, 0.5, 0.0)"], {"name": "arcface", "scale": 64.0, "margin": 0.5}),
        (["config.margin_list = [1, 0, .35]"], {"name": "cosface", "scale": 64.0, "margin": 0.35}),
        (
            ["config.margin_list = (1.0, 0.3, 0.2)"],
            {"name": "combined_margin", "scale": 64.0, "m1": 1.0, "m2": 0.3, "m3": 0.2},
        ),
        (
            ["config.margin_list = (1.0, 0.0, 0.4)", "config.interclass_filtering_threshold = 0.4"],
            {"name": "combined_margin", "scale": 64.0, "m1": 1.0, "m2": 0.0, "m3": 0.4, "filter_above": 0.4},
        ),
        (["config.loss = 'cosface'"], {"name": "cosface", "scale": 64.0, "margin": 0.4}),
    ],
)
def test_margins_are_a_loss_with_their_scale(tmp_path: Path, lines: list[str], objective: dict[str, Any]) -> None:
    (tmp_path / "job.py").write_text(least(*lines))
    assert yaml.safe_load(translated_config(tmp_path / "job.py", 8))["objective"] == objective


@pytest.mark.parametrize(
    ("network", "backbone"),
    [
        ("r18", {"name": "r18"}),
        ("iresnet100", {"name": "r100"}),
        ("mbf_large", {"name": "mbf_large"}),
        ("r2060", {"name": "r2060", "checkpoint_activations": True}),
        ("vit_t", {"name": "vit_t"}),
        ("vit_t_dp005_mask0", {"name": "vit_t", "drop_path": 0.05, "mask_ratio": 0.0}),
        ("vit_s_dp005_mask_0", {"name": "vit_s", "drop_path": 0.05, "mask_ratio": 0.0}),
        (
            "vit_l_dp005_mask_005",
            {"name": "vit_l", "drop_path": 0.05, "mask_ratio": 0.05, "checkpoint_activations": True},
        ),
    ],
)
def test_networks_have_their_names_here(tmp_path: Path, network: str, backbone: dict[str, Any]) -> None:
    config, _ = translated(tmp_path, least(f"config.network = {network!r}"))
    assert (
        config.backbone
        == Config.model_validate({"data": {"train": "x"}, "backbone": {"autocast": "float32", **backbone}}).backbone
    )


@pytest.mark.parametrize(
    "job",
    [
        "config = edict({'rec': 'data', 'num_epoch': 4, 'lr': 2 * 0.1})",
        "config = edict(dict(rec='data', num_epoch=4), lr=0.4 / 2)",
        "import easydict\nconfig = easydict.EasyDict()\nconfig['rec'] = 'data'\nconfig.num_epoch = 4\nconfig.lr = +.2",
        "gpus = 2\nlr = 0.1\nconfig = dict(rec='data', num_epoch=4)\nconfig['lr'] = lr * gpus",
        "from configs.base import config\nconfig.rec = 'data'\nconfig.num_epoch = 4\nconfig.lr = 0.2",
        "cfg = {}\nconfig = cfg\ncfg['rec'] = 'data'\ncfg['num_epoch'] = 4\ncfg['lr'] = 0.2",
    ],
)
def test_all_ways_of_writing_literals_are_read(tmp_path: Path, job: str) -> None:
    config, comments = translated(tmp_path, job)
    assert (str(config.data.train), config.schedule.epochs, config.optimizer.learning_rate) == ("data", 4, 0.2)
    assert not any("NOT READ" in comment for comment in comments)


@pytest.mark.parametrize(
    "line",
    [
        "config.lr = float(open('lr.txt').read())",
        "__import__('pathlib').Path('ran').touch()",
        "config.notes = [0] * 10 ** 9",
        "config.notes = 'x' * 1000000000",
        "config.lr = 1 / 0",
        "config.lr = unknown",
        "for i in range(3): config.lr = i",
    ],
)
def test_what_is_more_than_a_literal_is_said_and_never_run(
    tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, comments = translated(tmp_path, least(line))
    assert any(comment.startswith("NOT READ, job.py line 4: ") for comment in comments)
    assert config.optimizer.learning_rate == 0.1
    assert not (tmp_path / "ran").exists()


def test_a_batch_is_that_of_all_gpus_and_of_all_its_parts(tmp_path: Path) -> None:
    config, comments = translated(tmp_path, least("config.batch_size = 32", "config.gradient_acc = 4"), gpus=2)
    assert config.schedule.batch_size == 256
    assert "batch_size = 32 of each GPU: schedule.batch_size is that of all 2" in comments
    assert any(comment.startswith("gradient_acc = 4: a step takes") for comment in comments)


@pytest.mark.parametrize(("optimizer", "momentum"), [("sgd", 0.9), ("adamw", 0.0)])
def test_a_training_to_go_on_with_gives_its_schedule_and_the_pace_of_its_rows(
    tmp_path: Path, optimizer: str, momentum: float
) -> None:
    (tmp_path / "job.py").write_text(least("config.batch_size = 64", f"config.optimizer = '{optimizer}'"))
    text = translated_config(tmp_path / "job.py", 2, GoingOn(Path("runs/r50"), 2.0, lambda batch_size: 1 / batch_size))
    (tmp_path / "ours.yaml").write_text(text)
    config = load_config(tmp_path / "ours.yaml")
    assert config.run_dir == Path("runs/r50")
    assert config.schedule.power == 2.0
    assert (config.classifier.learning_rate, config.classifier.momentum) == (1 / 128, momentum)
    assert (config.optimizer.nesterov, config.optimizer.decays) == (optimizer == "adamw", "all")


def test_a_training_that_counted_parts_of_steps_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(least("config.gradient_acc = 4"))
    with pytest.raises(ConfigError, match="gradient_acc = 4: such a training counts parts of steps"):
        translated_config(tmp_path / "job.py", 2, GoingOn(Path("runs/r50"), None, None))


def test_the_sets_that_they_measure_on_the_way_are_measured_here(tmp_path: Path) -> None:
    config, comments = translated(tmp_path, least("config.val_targets = ['lfw', 'agedb_30']", "config.verbose = 500"))
    assert config.evaluation.sets == (Path("data/lfw.bin"), Path("data/agedb_30.bin"))
    assert (config.evaluation.every_steps, config.evaluation.flip) == (500, True)
    assert any(comment.startswith("val_targets: each .bin must be there") for comment in comments)
    config, comments = translated(tmp_path, least("config.val_targets = []"))
    assert (config.evaluation.sets, config.evaluation.every_steps) == ((), None)
    assert "verbose = 2000: nothing is measured on the way without val_targets" in comments


def test_a_rate_of_zero_draws_next_to_no_class_beside_those_of_the_batch(tmp_path: Path) -> None:
    config, comments = translated(tmp_path, least("config.sample_rate = 0"))
    assert config.classifier.sample_rate == 1e-6
    assert any(comment.startswith("sample_rate = 0, the classes of a batch alone") for comment in comments)


def test_every_key_that_is_written_is_one_of_the_tables(tmp_path: Path) -> None:
    """The tables of the importer are what the page docs/from_arcface_torch.md is held against."""
    told = {key for keys in TRANSLATED.values() for key in keys} | set(TWINS.values())
    fixed = {"optimizer.momentum", "optimizer.decays", "optimizer.nesterov", "schedule.power", "classifier.optimizer"}
    for job in (JOB, least("config.margin_list = (1.0, 0.3, 0.2)", "config.dali_aug = True")):
        (tmp_path / "job.py").write_text(job)
        tree = yaml.safe_load(translated_config(tmp_path / "job.py", 8))
        written = {
            f"{section}.{key}" if isinstance(keys, dict) else section
            for section, keys in tree.items()
            for key in (keys if isinstance(keys, dict) else [section])
        }
        assert written <= told | fixed | {"classifier.learning_rate"}


def test_without_base_its_defaults_are_known(tmp_path: Path) -> None:
    config, _ = translated(tmp_path, least(), base=None)
    assert config.model_copy(update={"run_dir": None}) == translated(tmp_path, least())[0].model_copy(
        update={"run_dir": None}
    )


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("config.lr = = 3", r"job\.py, line 1 is not Python"),
        ("x = 3", r"job\.py assigns no key to `config`"),
        ("", r"job\.py assigns no key to `config`"),
        ("config = 3", r"job\.py assigns no key to `config`"),
        ("config.batch_size = 'many'", "batch_size = 'many': expected a number"),
        ("config.val_targets = 'lfw'", "val_targets = 'lfw': expected a list of names"),
        ("config.sample_rate = 'all'", "sample_rate = 'all': expected a number"),
        ("config.margin_list = (1, 2)", r"margin_list = \[1, 2\]: expected three numbers"),
        ("\0", "is not Python"),
    ],
)
def test_what_is_no_config_is_refused(tmp_path: Path, job: str, said: str) -> None:
    (tmp_path / "job.py").write_text(job)
    with pytest.raises(ValueError, match=said):
        translated_config(tmp_path / "job.py", 8)
