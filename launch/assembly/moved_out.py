"""What a checkpoint of a run says to arcface_torch: its optimizer and schedule in their terms, and what has none."""

from __future__ import annotations

from typing import Any

from launch.assembly.optimizer import total_steps, warmup_steps
from launch.config.run import Config
from launch.config.schedule import ScheduleConfig
from launch.config.stages import stage_after, stages_of
from partial_fc.checkpoint.arcface_torch import Origin
from partial_fc.checkpoint.arcface_torch_optimizer import Course, Polynomial, course_of_run
from partial_fc.checkpoint.exporting import Export, network_to_export
from partial_fc.checkpoint.layout import CheckpointFolder

_THEIR_OBJECTIVES = ("arcface", "cosface", "combined_margin")
_THEIR_WIDTH, _THEIR_SIZE = 64, 112


def export_of(checkpoint: CheckpointFolder) -> tuple[Export, list[str]]:
    """What is exported of a checkpoint, and a line for all that finds no place there.

    ValueError for what is no checkpoint, and for a backbone that is no network of arcface_torch.
    """
    manifest, (network, backbone) = checkpoint.manifest(), network_to_export(checkpoint)
    origin = Origin.of(manifest)
    remarks, more = list[str](), list[str]()
    if (network.width, network.input_size) != (_THEIR_WIDTH, _THEIR_SIZE):
        remarks.append(f"{network}: get_model of arcface_torch makes it of width 64 and for 112 pixels only")
    if origin is not None:
        epoch, course, scale = origin.epoch, origin.course, 1.0
        more = [] if course else [f"no optimizer's state is written: {origin.without} in what was imported"]
    else:
        epoch, course, scale, more = _of_run(manifest.facts, manifest.step)
    return Export(checkpoint, manifest, network, backbone, epoch, course, scale), remarks + more


def _of_run(facts: dict[str, Any], step: int) -> tuple[int, Course | None, float, list[str]]:
    """The epoch that is to begin, the course, how much larger gradients are here, and what finds no place there."""
    try:
        whole, num_images = Config.model_validate(facts["config"]), int(facts["data"]["num_images"])
        config = stage_after(stages_of(whole, total_steps(whole.schedule, num_images)), step).config
    except (KeyError, ValueError):
        return 0, None, 1.0, ["its manifest holds no configuration: epoch 0 and no optimizer's state are written"]
    schedule, rows, name = config.schedule, config.classifier, config.optimizer.rule
    batch_size, remarks = schedule.batch_size, []
    epoch = (step + 1) * batch_size // num_images  # a run's last step may lie a part of a batch before the epoch's end
    if config.objective.name not in _THEIR_OBJECTIVES:
        remarks.append(f"objective {config.objective.name}: arcface_torch has none such, and needs a margin_list")
    if rows.optimizer != name:
        remarks.append(
            f"{name} of the backbone, {rows.optimizer} of the rows: there is one for both, so none is written"
        )
        return epoch, None, 1.0, remarks
    polynomial = _polynomial(schedule, num_images, step) if rows.schedule is None else None
    if polynomial is None:
        remarks.append("the schedule is not one polynomial down to 0: no state_lr_scheduler is written")
    rate, decay = config.optimizer.learning_rate, config.optimizer.weight_decay
    of_backbone: dict[str, Any] = {"lr": rate, "weight_decay": decay}
    of_rows: dict[str, Any] = {"lr": rows.learning_rate, "weight_decay": 0.0}
    if name == "adamw":
        of_backbone["betas"], of_rows["betas"] = (config.optimizer.momentum, 0.999), rows.betas
    else:
        momentum = config.optimizer.momentum
        of_backbone |= {"momentum": momentum, "nesterov": config.optimizer.nesterov and momentum > 0}
        of_rows |= {"lr": rows.learning_rate * batch_size, "momentum": rows.momentum}
    return epoch, course_of_run(of_backbone, of_rows, polynomial), float(batch_size), remarks


def _polynomial(schedule: ScheduleConfig, num_images: int, step: int) -> Polynomial | None:
    """The schedule in their terms; None where it has none."""
    if schedule.decay != "polynomial" or schedule.final:
        return None
    total = total_steps(schedule, num_images)
    return Polynomial(step, total, warmup_steps(schedule, total, num_images / schedule.batch_size), schedule.power)
