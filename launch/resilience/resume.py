"""Which checkpoint a start goes on from, and what refuses to go on."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
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
from launch.resilience.agent import is_under_agent
from launch.resilience.agreement import PATIENCE_SECONDS
from partial_fc import World
from partial_fc.checkpoint.identities import compared
from partial_fc.checkpoint.layout import (
    CheckpointFolder,
    remove_unfinished,
    set_aside,
    step_folder,
    whole_checkpoints,
)
from partial_fc.reports.time_spent import started_seconds

_BEGIN_ANEW, _NONE_USABLE = -1, -2  # in place of a step
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
    missing or cut short is passed over, and named. ConfigError where there are checkpoints and none can be used, and
    where the run was begun with another configuration, other images or other identities, with what differs, unless
    ``resume`` is ``changed``. Where it is ``never``, ranks that are started again go on all the same. One all-reduce of
    a number, and for ``never`` one all-gather.
    """
    since_seconds, chosen, problem = _since_seconds(config, world, device), _BEGIN_ANEW, ""
    if world.rank == 0 and folder.checkpoints.is_dir():
        if tidies:
            remove_unfinished(folder.checkpoints)
        whole = whole_checkpoints(folder.checkpoints)
        whole = [each for each in whole if each.path.stat().st_mtime > since_seconds]
        chosen, problem = _last_usable(whole, tidies=tidies) if whole else (_BEGIN_ANEW, "")
    step = int(world.all_sum(torch.tensor(chosen if world.rank == 0 else 0, device=device)))
    if step == _BEGIN_ANEW:
        return None
    if step == _NONE_USABLE:
        raise ConfigError(
            f"{folder.checkpoints} has checkpoints, and none can be used{problem and f': {problem}'}. Mend them, or "
            "give resume=never to begin anew and keep that run under another name"
        )
    checkpoint = CheckpointFolder(step_folder(folder.checkpoints, step))
    _wait_for(checkpoint)
    _refuse_differences(folder, config, checkpoint, facts, identities_C)
    return checkpoint.path


def _since_seconds(config: Config, world: World, device: torch.device) -> float:
    """From when on a checkpoint may be to go on from: with ``never``, the first start of the agents of these ranks.

    A job that Slurm queues again has another agent, and is no first start.
    """
    if config.resume != "never" or os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
        return -math.inf
    if not is_under_agent():
        return math.inf
    started = torch.tensor(started_seconds(os.getppid()), dtype=torch.float64, device=device)
    return float(world.all_gather(started).min())


def _last_usable(whole: Sequence[CheckpointFolder], *, tidies: bool) -> tuple[int, str]:
    """The step of the last checkpoint that can be used; else _NONE_USABLE, and what is wrong with the last one."""
    problems = dict[Path, str]()
    for checkpoint in reversed(whole):
        if not (found := checkpoint.problems(reads=False)):
            for path, problem in problems.items():
                aside = set_aside(CheckpointFolder(path)) if tidies else path
                print(f"{path} is passed over{f', and kept as {aside}' if tidies else ''}: {problem}", flush=True)
            return checkpoint.step, ""
        problems[checkpoint.path] = found[0]
    return _NONE_USABLE, next(iter(problems.values()))


def _wait_for(checkpoint: CheckpointFolder) -> None:
    """Return when this rank sees it: a network's file system may take a while to show what rank 0 sees."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not checkpoint.manifest_file.is_file() and time.monotonic() < until:
        time.sleep(0.5)
        if checkpoint.path.parent.is_dir():
            os.listdir(checkpoint.path.parent)  # which asks the file system anew


def _refuse_differences(
    folder: RunFolder, config: Config, checkpoint: CheckpointFolder, facts: dict[str, Any], identities_C: Tensor
) -> None:
    then, with_rows = checkpoint.manifest().facts, ""
    if config.resume == "changed":
        _refuse_other_batch(folder, config, checkpoint, then)
        return
    differences = list(_differences(then, facts))
    if (others := _other_identities(checkpoint, facts, identities_C)) is not None:
        differences.append(f"of its identities, {others}")
        with_rows = (
            "; the class rows of those that are kept go on with resume=changed, or begin a run in another run_dir with "
            f"backbone.weights={folder.path} and classifier.rows={folder.path}"
        )
    if differences:
        raise ConfigError(
            f"{folder.path} holds a run at step {checkpoint.step:,} that was begun otherwise: "
            f"{'; '.join(differences)}. Give the values of before to go on with it, resume=changed to go on with "
            f"these, or resume=never to begin anew and keep that run under another name{with_rows}"
        )


def _refuse_other_batch(folder: RunFolder, config: Config, checkpoint: CheckpointFolder, then: dict[str, Any]) -> None:
    """ConfigError where a run would take its steps for another number of images: its place in data and schedule."""
    was, now = then.get("config", {}).get("schedule", {}).get("batch_size"), config.schedule.batch_size
    if was not in (None, now) and "imported_from" not in then:
        raise ConfigError(
            f"{folder.path} holds a run at step {checkpoint.step:,} of {was} images each, and schedule.batch_size is "
            f"{now}: its place in the images and in the schedule would be another. Give the batch of before, or begin "
            f"a run in another run_dir with backbone.weights={folder.path} and classifier.rows={folder.path}"
        )


def _other_identities(checkpoint: CheckpointFolder, facts: dict[str, Any], identities_C: Tensor) -> str | None:
    """How many identities are kept, new and removed; None where they are the same, or the checkpoint does not say."""
    was = checkpoint.manifest().facts.get("data", {}).get("identities")
    if was in (None, facts["data"]["identities"]):
        return None
    counts = compared(checkpoint, identities_C)
    return str(counts) if counts.new or counts.removed else f"{counts}, with other labels"


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
