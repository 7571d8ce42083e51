"""Which checkpoint a start goes on from, and what refuses to go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_pipeline.sets.fingerprint import fingerprint
from data_pipeline.sets.identity_keys import identities_mark
from data_pipeline.source import Source
from launch.assembly.run_folder import RunFolder
from launch.config.loading import ConfigError
from launch.config.run import Config
from partial_fc import World
from partial_fc.checkpoint.identities import compared
from partial_fc.checkpoint.layout import CheckpointFolder, remove_unfinished, whole_checkpoints
from partial_fc.reports.time_spent import started_seconds
from partial_fc.world import restarts

_FREE = {  # keys that may change between the starts of one run: none of them changes what is learnt
    "run_dir",
    "resume",
    "save_every_steps",
    "checkpoint",
    "watchdog",
    "report",
    "divergence",
    "evaluation",
    "data.train",  # where the images lie: what they are is compared by their fingerprint
    "data.evaluate",
    "data.root",
    "data.quarantine",
    "data.num_classes",  # checks of what the images are
    "data.num_images",
    "data.decode_threads",
    "data.most_bad_images",
    "backbone.compile",
    "backbone.checkpoint_activations",
    "classifier.block_classes",
    "classifier.cosines",
    "classifier.near",
}


def run_facts(config: Config, source: Source, identities_C: Tensor) -> dict[str, Any]:
    """What a checkpoint says of its run: the whole configuration, and what the images are and whose."""
    data = {
        "num_images": len(source),
        "num_classes": source.num_classes,
        "fingerprint": fingerprint(source),
        "identities": identities_mark(identities_C.numpy()),
    }
    return {"config": config.model_dump(mode="json"), "data": data}


def checkpoint_to_resume(
    folder: RunFolder,
    config: Config,
    facts: dict[str, Any],
    identities_C: Tensor,
    world: World,
    device: torch.device,
    *,
    tidies: bool = True,
) -> Path | None:
    """The checkpoint in ``folder`` that this start goes on from, the same on every rank; None to begin anew.

    What saves left that were interrupted is removed, where this start ``tidies``. A checkpoint with a file that is
    missing or cut short is passed over, and named. ConfigError where the run was begun with another configuration,
    other images or other identities, with what differs, unless ``resume`` is ``changed``. Where it is ``never``, only
    ranks that are started again go on, from a checkpoint of their own agent's time. One all-reduce of a number.
    """
    chosen, begins_anew = 0, config.resume == "never" and not restarts()
    if world.rank == 0 and folder.checkpoints.is_dir() and not begins_anew:
        if tidies:
            remove_unfinished(folder.checkpoints)
        whole = whole_checkpoints(folder.checkpoints)
        if config.resume == "never":
            agent_started_seconds = started_seconds(os.getppid())
            whole = [each for each in whole if each.path.stat().st_mtime > agent_started_seconds]
        chosen = next((place for place in range(len(whole), 0, -1) if _is_intact(whole[place - 1])), 0)
        chosen = _step(whole[chosen - 1]) + 1 if chosen else 0
    step = int(world.all_sum(torch.tensor(chosen, device=device))) - 1
    if step < 0:
        return None
    checkpoint = next(each for each in whole_checkpoints(folder.checkpoints) if _step(each) == step)
    if config.resume != "changed":
        _refuse_differences(folder, checkpoint, facts, identities_C)
    return checkpoint.path


def _refuse_differences(
    folder: RunFolder, checkpoint: CheckpointFolder, facts: dict[str, Any], identities_C: Tensor
) -> None:
    differences, with_rows = list(_differences(checkpoint.manifest().facts, facts)), ""
    if (others := _other_identities(checkpoint, facts, identities_C)) is not None:
        differences.append(f"of its identities, {others}")
        with_rows = (
            "; the class rows of those that are kept go on with resume=changed, or begin a run in another run_dir with "
            f"backbone.weights={folder.path} and classifier.rows={folder.path}"
        )
    if differences:
        raise ConfigError(
            f"{folder.path} holds a run at step {_step(checkpoint):,} that was begun otherwise: "
            f"{'; '.join(differences)}. Give the values of before to go on with it, resume=changed to go on with "
            f"these, or resume=never to begin anew and keep that run under another name{with_rows}"
        )


def _other_identities(checkpoint: CheckpointFolder, facts: dict[str, Any], identities_C: Tensor) -> str | None:
    """How many identities are kept, new and removed; None where they are the same, or the checkpoint does not say."""
    was = checkpoint.manifest().facts.get("data", {}).get("identities")
    if was in (None, facts["data"]["identities"]):
        return None
    counts = compared(checkpoint, identities_C)
    return str(counts) if counts.new or counts.removed else f"{counts}, with other labels"


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
        if key == "identities":  # told by _other_identities
            continue
        if then.get("data", {}).get(key, value if is_imported else None) != value:
            yield f"the training set's {key} was {then.get('data', {}).get(key)} and is {value}"


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif key == "stages" and value is not None:
            for number, stage in enumerate(value, 1):
                yield from _flat(stage, f"{prefix}{key}, stage {number}: ")
        else:
            yield f"{prefix}{key}", value
