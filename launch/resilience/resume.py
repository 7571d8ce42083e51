"""Which checkpoint a start goes on from, and what refuses to go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from data_pipeline.sets.fingerprint import fingerprint
from data_pipeline.source import Source
from launch.assembly.run_folder import RunFolder
from launch.config.loading import ConfigError
from launch.config.run import Config
from partial_fc import World
from partial_fc.checkpoint.layout import CheckpointFolder, remove_unfinished, whole_checkpoints

_FREE = {  # keys that may change between the starts of one run: none of them changes what is learnt
    "run_dir",
    "resume",
    "save_every_steps",
    "checkpoint",
    "report",
    "data.train",  # where the images lie: what they are is compared by their fingerprint
    "data.evaluate",
    "data.quarantine",
    "data.decode_threads",
    "data.most_bad_images",
    "backbone.compile",
    "classifier.block_classes",
    "classifier.cosines",
}


def run_facts(config: Config, source: Source) -> dict[str, Any]:
    """What a checkpoint says of its run: the whole configuration, and what the images are."""
    data = {"num_images": len(source), "num_classes": source.num_classes, "fingerprint": fingerprint(source)}
    return {"config": config.model_dump(mode="json"), "data": data}


def checkpoint_to_resume(folder: RunFolder, config: Config, facts: dict[str, Any], world: World) -> Path | None:
    """The checkpoint in ``folder`` that this start goes on from, the same on every rank; None to begin anew.

    What saves left that were interrupted is removed. A checkpoint with a file that is missing or cut short is passed
    over, and named. ConfigError where the run was begun with another configuration or other images, with what differs,
    unless ``resume`` is ``changed``. Two all-reduces of a number.
    """
    if config.resume == "never":
        return None
    chosen = 0
    if world.rank == 0 and folder.checkpoints.is_dir():
        remove_unfinished(folder.checkpoints)
        whole = whole_checkpoints(folder.checkpoints)
        chosen = next((place for place in range(len(whole), 0, -1) if _is_intact(whole[place - 1])), 0)
        chosen = _step(whole[chosen - 1]) + 1 if chosen else 0
    step = int(world.all_sum(torch.tensor(chosen))) - 1
    if step < 0:
        return None
    checkpoint = next(each for each in whole_checkpoints(folder.checkpoints) if _step(each) == step)
    differences = list(_differences(checkpoint.manifest().facts, facts)) if config.resume == "auto" else []
    if differences:
        raise ConfigError(
            f"{folder.path} holds a run at step {step:,} that was begun otherwise: {'; '.join(differences)}. Give the "
            "values of before to go on with it, resume=changed to go on with these, or resume=never to begin anew and "
            "keep that run under another name"
        )
    return checkpoint.path


def _is_intact(checkpoint: CheckpointFolder) -> bool:
    problems = checkpoint.problems(reads=False)
    if problems:
        print(f"{checkpoint.path} is passed over: {problems[0]}", flush=True)
    return not problems


def _step(checkpoint: CheckpointFolder) -> int:
    return int(checkpoint.path.name.removeprefix("step-"))


def _differences(then: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What differs between the facts of a checkpoint and of this start, key by key.

    An imported training is compared in what its files say, and in nothing else.
    """
    before, after = (dict(_flat(facts.get("config", {}))) for facts in (then, now))
    is_imported = "imported_from" in then
    for key in sorted(before.keys() if is_imported else before.keys() | after.keys()):
        if not any(f"{key}.".startswith(f"{free}.") for free in _FREE) and before.get(key) != after.get(key):
            yield f"{key} was {before.get(key)} and is {after.get(key)}"
    for key, value in now["data"].items():
        if then.get("data", {}).get(key, value if is_imported else None) != value:
            yield f"the training set's {key} was {then.get('data', {}).get(key)} and is {value}"


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
