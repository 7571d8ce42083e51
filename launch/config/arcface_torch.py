"""arcface_torch's config, ``configs/base.py`` and a job's file over it, as a configuration of ours with comments."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from launch.config.loading import ConfigError, yaml_text
from launch.config.python_config import read_python_config

_Values = dict[str, Any]

_BASE: _Values = {  # where no base.py lies beside the file
    "margin_list": [1.0, 0.5, 0.0],
    "network": "r50",
    "embedding_size": 512,
    "sample_rate": 1,
    "interclass_filtering_threshold": 0,
    "fp16": False,
    "batch_size": 128,
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "verbose": 2000,
    "frequent": 10,
    "gradient_acc": 1,
    "seed": 2048,
    "num_workers": 2,
}
TWINS = {  # keys whose value stands here as it is
    "output": "run_dir",
    "seed": "seed",
    "rec": "data.train",
    "num_classes": "data.num_classes",
    "num_image": "data.num_images",
    "embedding_size": "backbone.embedding_dim",
    "sample_rate": "classifier.sample_rate",
    "optimizer": "optimizer.name",
    "lr": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "num_epoch": "schedule.epochs",
    "frequent": "report.every_steps",
}
_ONE_MARGIN = ("objective.name", "objective.scale", "objective.margin")
TRANSLATED = {  # keys that become others, with those
    "network": tuple(f"backbone.{key}" for key in ("name", "drop_path", "mask_ratio", "checkpoint_activations")),
    "fp16": ("backbone.autocast",),
    "margin_list": (*_ONE_MARGIN, "objective.m1", "objective.m2", "objective.m3"),
    "loss": _ONE_MARGIN,
    "interclass_filtering_threshold": ("objective.filter_above",),
    "batch_size": ("schedule.batch_size",),
    "warmup_epoch": ("schedule.warmup_epochs",),
    "num_workers": ("data.decode_threads",),
    "dali_aug": ("data.augmentation",),
    "val_targets": ("evaluation.sets", "evaluation.flip"),
    "verbose": ("evaluation.every_steps",),
}
_WANDB = "not Weights & Biases but metrics.jsonl, Prometheus, report.tensorboard and report.html"
WITHOUT_TWIN = {
    "resume": "a run goes on by itself; with a training of theirs after partial-fc import arcface_torch",
    "save_all_states": "a checkpoint always holds the backbone and the class rows, and is written every 5,000 steps",
    "dali": "DALI reads the images always",
    "gradient_acc": "a step takes the images of all of them at once; see backbone.checkpoint_activations for memory",
    "momentum": "arcface_torch takes 0.9 whatever it says; so does the backbone here, and the class rows have none",
    "decay_epoch": "no fall in steps here: schedule.decay is polynomial or cosine",
    "dataset": "rec says where the images are",
    **dict.fromkeys(("using_wandb", "wandb_key", "wandb_entity", "wandb_project", "wandb_log_all"), _WANDB),
    **dict.fromkeys(("wandb_resume", "save_artifacts", "suffix_run_name", "notes"), _WANDB),
}
_DALI_AUGMENTATION = {"mirror": 0.5, "low_resolution": 0.1, "blur": 0.2, "colour": 0.2, "grey": 0.1}
_SCALE = 64.0
_ROW_RATE = 9.0e-4  # 0.0584 / the scale, as in configs/ms1mv3_arcface.yaml: docs/experiments.md
_NEXT_TO_NO_RATE = 1e-6  # in place of 0, which draws the classes of the batch and no others
_USUAL = {"momentum": 0.9, "gradient_acc": 1}  # values that need no word
_NUMBERS = (
    *("batch_size", "gradient_acc", "interclass_filtering_threshold", "warmup_epoch", "num_workers", "lr"),
    *("sample_rate", "verbose"),
)
_LONGEST_VALUE = 60  # characters in a comment


class GoingOn(NamedTuple):
    """An imported training that a configuration goes on with.

    ``power`` is its schedule's; ``row_rate`` gives the learning rate of unit rows that keeps the pace of its rows, for
    a batch of so many images. None where its files do not tell.
    """

    run: Path
    power: float | None
    row_rate: Callable[[int], float] | None


def translated_config(path: Path, gpus: int, going_on: GoingOn | None = None) -> str:
    """The YAML of ours for the config at ``path``, which is read and never run, on so many GPUs.

    Comments say what has no twin, and which lines are more than assignments of literals. ``going_on`` is the training
    of that config that the run goes on with. ValueError for a file that is not Python, or assigns nothing to
    ``config``; ConfigError for a training that counted its steps otherwise.
    """
    base = path.with_name("base.py")
    files = [base, path] if base.is_file() and path.name != base.name else [path]
    read = {file: read_python_config(file) for file in files}
    if not read[path].values:
        raise ValueError(f'{path} assigns no key to `config`: expected lines such as config.network = "r50"')
    values: _Values = dict(_BASE)
    for config in read.values():
        values |= config.values
    _check(values, path)
    if values.get("output") is None:
        values["output"] = f"work_dirs/{path.stem}"
    unread = [
        f"NOT READ, {file.name} line {line}: {_short(text)}" for file in files for line, text in read[file].unread
    ]
    comments = [f"{path.name} of arcface_torch, for {gpus} GPUs (--gpus).", *unread, *_remarks(values, gpus)]
    tree = _tree(values, gpus)
    if going_on is not None:
        _go_on(tree, values, going_on)
    return "".join(f"# {line}\n" for line in comments) + yaml_text(tree)


def _tree(values: _Values, gpus: int) -> _Values:
    """Our sections, of the keys that are there."""
    tree: _Values = {"run_dir": None, "seed": None, "data": {}, "backbone": _backbone(values)}
    tree["objective"] = _objective(values)
    tree |= {"classifier": {}, "optimizer": {}, "schedule": {}, "report": {}}
    for theirs, ours in TWINS.items():
        if theirs in values:
            *section, key = ours.split(".")
            (tree[section[0]] if section else tree)[key] = values[theirs]
    tree["classifier"]["sample_rate"] = values["sample_rate"] or _NEXT_TO_NO_RATE
    tree["optimizer"] |= {"momentum": 0.9, "decays": "all"}
    if values["optimizer"] == "sgd":
        tree["optimizer"]["nesterov"] = False
        tree["classifier"]["learning_rate"] = _ROW_RATE
    if values["optimizer"] == "adamw":
        tree["classifier"] |= {"optimizer": "adamw", "learning_rate": values["lr"]}
    tree["schedule"]["power"] = 1.0
    tree["schedule"]["warmup_epochs"] = max(values.get("warmup_epoch", 0), 0)
    tree["data"]["decode_threads"] = max(values["num_workers"], 1)
    if values.get("dali_aug"):
        tree["data"]["augmentation"] = dict(_DALI_AUGMENTATION)
    tree["schedule"]["batch_size"] = values["batch_size"] * values["gradient_acc"] * gpus
    return tree | _evaluation(values)


def _go_on(tree: _Values, values: _Values, going_on: GoingOn) -> None:
    """Have the configuration ``tree`` go on where the training stood."""
    if values["gradient_acc"] != 1:
        raise ConfigError(
            f"gradient_acc = {values['gradient_acc']}: such a training counts parts of steps, so that no run here "
            f"can go on where it stood. Leave --run out, and start with backbone.weights={going_on.run} and "
            f"classifier.rows={going_on.run}"
        )
    tree["run_dir"] = str(going_on.run)
    if going_on.power is not None:
        tree["schedule"]["power"] = float(going_on.power)
    if going_on.row_rate is not None:
        tree["classifier"]["learning_rate"] = going_on.row_rate(tree["schedule"]["batch_size"])
        if values["optimizer"] == "sgd":
            tree["classifier"]["momentum"] = 0.9


def _backbone(values: _Values) -> _Values:
    name = str(values["network"])
    section: _Values = {"autocast": "bfloat16" if values["fp16"] else "float32"}
    if re.match(r"r2060|vit_[blh]", name):  # which save memory there always
        section["checkpoint_activations"] = True
    if rates := re.fullmatch(r"(vit_[a-z])_dp(\d+)_mask_?(\d+)", name):  # 005 stands for 0.05
        drop_path, mask_ratio = (float(f"{digits[0]}.{digits[1:]}") for digits in (rates[2], rates[3]))
        return {"name": rates[1], "drop_path": drop_path, "mask_ratio": mask_ratio, **section}
    return {"name": re.sub(r"^iresnet(?=\d)", "r", name), **section}


def _evaluation(values: _Values) -> _Values:
    """The section of the sets that are measured on the way, which lie beside the images; none without any."""
    targets = values.get("val_targets") or []
    if not targets:
        return {}
    sets = [str(Path(values.get("rec") or ".") / f"{name}.bin") for name in targets]
    return {"evaluation": {"every_steps": values["verbose"], "sets": sets, "flip": True}}


def _objective(values: _Values) -> _Values:
    of_loss = {"arcface": [1.0, 0.5, 0.0], "cosface": [1.0, 0.0, 0.4]}  # before margin_list there was a name
    m1, m2, m3 = of_loss.get(str(values.get("loss"))) or values["margin_list"]
    threshold = values["interclass_filtering_threshold"]
    if threshold > 0:
        return {"name": "combined_margin", "scale": _SCALE, "m1": m1, "m2": m2, "m3": m3, "filter_above": threshold}
    if m1 == 1 and m3 == 0:
        return {"name": "arcface", "scale": _SCALE, "margin": m2}
    if m1 == 1 and m2 == 0:
        return {"name": "cosface", "scale": _SCALE, "margin": m3}
    return {"name": "combined_margin", "scale": _SCALE, "m1": m1, "m2": m2, "m3": m3}


def _remarks(values: _Values, gpus: int) -> list[str]:
    """A line for each key without a twin, and for those whose twin means something else."""
    remarks = [
        f"batch_size = {values['batch_size']} of each GPU: schedule.batch_size is that of all {gpus}",
        f"lr = {values['lr']}: the backbone's here; the class rows, of unit length, have classifier.learning_rate",
    ]
    for key, value in values.items():
        if key in TWINS or key in TRANSLATED or (key in _USUAL and value == _USUAL[key]):
            continue
        shown = _short(f"{key} = {value!r}")
        remarks.append(f"{shown}: {WITHOUT_TWIN.get(key, 'no key of its base.py, and none here')}")
    if values["sample_rate"] == 0:
        remarks.append(f"sample_rate = 0, the classes of a batch alone: {_NEXT_TO_NO_RATE} draws next to none besides")
    if values.get("val_targets"):
        remarks.append("val_targets: each .bin must be there, where arcface_torch passes over one that is missing")
    else:
        remarks.append(f"verbose = {values['verbose']}: nothing is measured on the way without val_targets")
    if values.get("rec") == "synthetic":
        remarks.append("rec = 'synthetic': draw a set with partial-fc pack synthetic, and name it in data.train")
    return remarks


def _short(text: str) -> str:
    """``text`` for a comment; the key of an account belongs in no other file."""
    if "wandb_key" in text:
        return "wandb_key = ..."
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _check(values: _Values, path: Path) -> None:
    for key in _NUMBERS:
        if not isinstance(values.get(key, 0), int | float):
            raise ValueError(f"{path}: {key} = {values[key]!r}: expected a number")
    targets = values.get("val_targets")
    if targets is not None and not (isinstance(targets, list) and all(isinstance(name, str) for name in targets)):
        raise ValueError(f"{path}: val_targets = {targets!r}: expected a list of names")
    if not isinstance(values.get("rec"), str | None):
        raise ValueError(f"{path}: rec = {values['rec']!r}: expected the path of the images")
    margins = values["margin_list"]
    if not isinstance(margins, list) or len(margins) != 3 or not all(isinstance(m, int | float) for m in margins):
        raise ValueError(f"{path}: margin_list = {margins!r}: expected three numbers")
