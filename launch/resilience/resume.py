"""Which checkpoint a start goes on from, and what refuses to go on."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data_pipeline.sets.fingerprint import fingerprint
from data_pipeline.sets.identity_keys import identities_mark
from data_pipeline.source import Source
from launch.assembly.run_folder import RunFolder
from launch.config.loading import ConfigError
from launch.config.run import Config
from launch.resilience.agent import is_under_agent
from launch.resilience.agreement import appears
from partial_fc import World
from partial_fc.checkpoint.identities import compared
from partial_fc.checkpoint.layout import (
    CheckpointFolder,
    OtherVersionError,
    step_folder,
    whole_checkpoints,
)
from partial_fc.checkpoint.tidying import remove_unfinished, set_aside
from partial_fc.reports.time_spent import started_seconds

_BEGIN_ANEW, _NONE_USABLE = -1, -2  # in place of a step
_JOB = "slurm_job"  # the key of a manifest's facts
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
    facts = {"config": config.model_dump(mode="json"), "data": data}
    job = os.environ.get("SLURM_JOB_ID")
    return facts if job is None else {**facts, _JOB: job}


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

    Where this start ``tidies``, what saves left that were interrupted is removed. A checkpoint with a file that is
    missing or cut short is passed over, named and set aside. ConfigError where there are checkpoints and none can be
    used, and where the run was begun with another configuration, other images or other identities, with what differs,
    unless ``resume`` is ``changed``. Where it is ``never``, ranks that are started again go on all the same. One
    all-reduce of a number, and for ``never`` one all-gather.
    """
    since_seconds, found = _since_seconds(config, world, device), _Found(_BEGIN_ANEW)
    if world.rank == 0 and folder.checkpoints.is_dir():
        whole = whole_checkpoints(folder.checkpoints)
        if config.resume == "never":
            whole = [each for each in whole if _is_of_this_start(each, since_seconds)]
        found = _last_usable(whole)
    step = int(world.all_sum(torch.tensor(found.step if world.rank == 0 else 0, device=device)))
    if step == _BEGIN_ANEW:
        return None
    if step == _NONE_USABLE:
        raise ConfigError(
            f"{folder.checkpoints} has checkpoints, and none to go on from{found.why}. Mend them, or give resume=never "
            "to begin anew and keep that run under another name"
        )
    checkpoint = CheckpointFolder(step_folder(folder.checkpoints, step))
    appears(checkpoint.manifest_file, folder.checkpoints)
    _refuse_differences(folder, config, checkpoint, facts, identities_C)
    if world.rank == 0 and tidies:
        _tidy(folder, found)
    return checkpoint.path


class _Found(NamedTuple):
    """The step of the checkpoint to go on from, what was passed over and why, and why there is none."""

    step: int
    passed_over: Sequence[tuple[CheckpointFolder, str]] = ()
    why: str = ""


def _since_seconds(config: Config, world: World, device: torch.device) -> float:
    """When the first of the agents that started these ranks began; no time where they have none."""
    if config.resume != "never" or not is_under_agent():
        return math.inf
    started = torch.tensor(started_seconds(os.getppid()), dtype=torch.float64, device=device)
    return float(world.all_gather(started).min())


def _is_of_this_start(checkpoint: CheckpointFolder, since_seconds: float) -> bool:
    """Whether the run of the checkpoint was begun by these agents, or by this job before Slurm queued it again."""
    try:
        facts = checkpoint.manifest().facts
        spent = facts["time_spent"]
        began_seconds = spent["until_seconds"] - sum(spent["seconds"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return bool(began_seconds > since_seconds or facts.get(_JOB) == os.environ.get("SLURM_JOB_ID", ""))


def _last_usable(whole: Sequence[CheckpointFolder]) -> _Found:
    passed_over = list[tuple[CheckpointFolder, str]]()
    for checkpoint in reversed(whole):
        try:
            checkpoint.manifest()
        except OtherVersionError as error:  # a newer program's, whose work is not to be trained again
            return _Found(_NONE_USABLE, why=f": {error}")
        except ValueError:
            pass
        if not (problems := checkpoint.problems(reads=False)):
            return _Found(checkpoint.step, passed_over)
        passed_over.append((checkpoint, problems[0]))
    return _Found(_NONE_USABLE, why=f": {passed_over[0][1]}") if passed_over else _Found(_BEGIN_ANEW)


def _tidy(folder: RunFolder, found: _Found) -> None:
    """Remove what was interrupted, and set aside what was passed over, as far as the file system lets it."""
    remove_unfinished(folder.checkpoints)
    for checkpoint, problem in found.passed_over:
        try:
            where = f"kept as {set_aside(checkpoint)}"
        except OSError as error:
            where = f"and stays where it is ({error})"
        print(f"{checkpoint.path} is passed over, {where}: {problem}", flush=True)


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
