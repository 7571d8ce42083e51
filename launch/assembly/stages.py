"""A stage of a run begins: what it changes of the run's parts while they train on."""

from __future__ import annotations

from launch.assembly.data import augmentation
from launch.assembly.model import objective
from launch.assembly.run import Run
from launch.config.objectives import ObjectiveConfig
from launch.config.stages import Stage
from partial_fc import AdaCos, Objective, ShardedClassifier


def begin_stage(parts: Run, before: Stage, stage: Stage) -> None:
    """Give ``parts``, which trained in the stage ``before``, what ``stage`` changes; learning rates follow the step.

    Class rows, the optimizers' state, the order of the images and what two objectives of one class both keep go on.
    Where losses may be others, those that a spike is measured by begin anew. No collective.
    """
    was, now = before.config, stage.config
    if now.objective != was.objective:
        parts.head.objective = next_objective(now.objective, parts.head)
    parts.head.sample_rate = now.classifier.sample_rate
    if parts.head.row_optimizer is not None:
        parts.head.row_optimizer.clip = now.classifier.clip or None
    if now.data.augmentation != was.data.augmentation:
        parts.batches.change_augmentation(augmentation(now.data))
    is_same_loss = (now.objective, now.classifier.sample_rate) == (was.objective, was.classifier.sample_rate)
    if not is_same_loss or now.data.augmentation != was.data.augmentation:
        parts.state.course.begin_anew()


def next_objective(section: ObjectiveConfig, head: ShardedClassifier) -> Objective:
    """The objective of ``section``, where ``head`` is; dynamic AdaCos takes the scale of dynamic AdaCos.

    That scale goes on, no larger than the new largest one. After another objective AdaCos begins at the fixed scale.
    """
    before, made = head.objective, objective(section, head.num_classes).to(head.weight.device)
    if isinstance(before, AdaCos) and isinstance(made, AdaCos) and before.dynamic and made.dynamic:
        made.load_state_dict(before.state_dict())
        made.scale.clamp_(max=made.max_scale)
    return made.train(head.training)
