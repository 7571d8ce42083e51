"""The optimizer and the schedule in arcface_torch's files: numbered there, by the parameters' names here.

One optimizer of torch's holds two groups there, the backbone's parameters and the head's one matrix::

    state_optimizer["state"][k]        momentum_buffer of SGD; step, exp_avg and exp_avg_sq of AdamW; of parameter k
    state_optimizer["param_groups"]    of either group: lr, initial_lr, momentum, ..., and params, the numbers k
    state_lr_scheduler                 last_epoch, which counts steps, warmup_iters, total_iters, power

``k`` counts the backbone's parameters in their order, frozen ones too, and then the head's weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_ROW_STATE = {  # as torch's optimizers call it, and ours
    "momentum_buffer": "momentum_cD",
    "exp_avg": "first_moment_cD",
    "exp_avg_sq": "second_moment_cD",
    "step": "updates_c",
}
_TOTAL, _WARMUP = ("total_iters", "max_steps"), ("warmup_iters", "warmup_steps")  # since 2022, and before
_GRADIENTS = {"momentum_buffer": 1, "exp_avg": 1, "exp_avg_sq": 2}  # how often the gradient is a factor


class Course(NamedTuple):
    """How a training steps, in what JSON holds: torch's options of both groups, and the numbers of the schedule.

    ``groups`` are the backbone's and the class rows': ``lr`` is the rate of the next step, ``initial_lr`` the largest.
    ``schedule`` is empty where none is known.
    """

    groups: list[dict[str, Any]]
    schedule: dict[str, Any]

    @property
    def optimizer(self) -> str:
        """``sgd`` or ``adamw``."""
        return "adamw" if "betas" in self.groups[0] else "sgd"

    @property
    def row_rate(self) -> float:
        """The largest learning rate of the class rows."""
        return float(self.groups[1].get("initial_lr", self.groups[1]["lr"]))

    @property
    def total_steps(self) -> int | None:
        """How many steps the training was to take."""
        return next((int(self.schedule[key]) for key in _TOTAL if key in self.schedule), None)


class Polynomial(NamedTuple):
    """A polynomial schedule after ``step`` steps."""

    step: int
    total_steps: int
    warmup_steps: int
    power: float

    def factor(self) -> float:
        """Of the largest rate, for the next step there: ours of the step before, and the whole rate at the first."""
        step, warmup, total = min(self.step, self.total_steps), self.warmup_steps, self.total_steps
        if step == 0:
            return 1.0
        return step / warmup if step <= warmup else float((total - step) / (total - warmup)) ** self.power


def course_of(content: Mapping[str, Any], parameters: int) -> Course:
    """That of a file, whose backbone has so many parameters. ValueError with the reason where it has none to take."""
    state = content.get("state_optimizer")
    groups = state.get("param_groups") if isinstance(state, Mapping) else None
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        raise ValueError("there is no state_optimizer")
    sizes = [len(group.get("params") or ()) for group in groups]
    if sizes != [parameters, 1]:
        raise ValueError(f"state_optimizer is of groups of {sizes} parameters, and not of [{parameters}, 1]")
    if not all("lr" in group and ("betas" in group or "momentum" in group) for group in groups):
        raise ValueError("state_optimizer is neither SGD's nor AdamW's")
    schedule = content.get("state_lr_scheduler")
    return Course([_told(group) for group in groups], _plain(schedule) if isinstance(schedule, Mapping) else {})


def course_of_run(backbone: dict[str, Any], rows: dict[str, Any], schedule: Polynomial | None) -> Course:
    """That of a run of ours as their code would write it, from the options of torch's optimizer for both groups.

    ``lr`` is the largest rate, and that of the rows is for the gradient of the loss's mean.
    """
    factor = 1.0 if schedule is None else schedule.factor()
    parameters = [{**options, "params": [nn.Parameter(torch.empty(1))]} for options in (backbone, rows)]
    made = (torch.optim.AdamW if "betas" in backbone else torch.optim.SGD)(parameters, lr=backbone["lr"])
    rates = [float(group["lr"]) for group in made.param_groups]
    groups = [{**_told(group), "lr": group["lr"] * factor, "initial_lr": group["lr"]} for group in made.param_groups]
    if schedule is None:
        return Course(groups, {})
    told: dict[str, Any] = {"total_iters": schedule.total_steps, "warmup_iters": schedule.warmup_steps}
    told |= {"power": schedule.power, "base_lrs": rates, "_last_lr": [rate * factor for rate in rates]}
    told |= {"last_epoch": schedule.step, "_step_count": schedule.step + 1, "_get_lr_called_within_step": False}
    return Course(groups, told)


def backbone_state(content: Mapping[str, Any], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The optimizer's tensors of the backbone as ``optimizer.NAME.KEY``, bitwise. ValueError for other shapes."""
    state, found = content["state_optimizer"]["state"], {}
    numbers = content["state_optimizer"]["param_groups"][0]["params"]
    for number, (name, parameter) in zip(numbers, parameters.items(), strict=True):
        for key, value in _tensors(state.get(number, {})).items():
            if value.dim() and value.shape != parameter.shape:
                raise ValueError(
                    f"{key} of parameter {number} in state_optimizer has the shape {tuple(value.shape)}, and {name} "
                    f"has {tuple(parameter.shape)}"
                )
            found[f"optimizer.{name}.{key}"] = value
    return found


def row_state(content: Mapping[str, Any], rows_cD: Tensor) -> dict[str, Tensor]:
    """Those of this rank's rows by our names for them, in the space of their rows. ValueError for other shapes."""
    (number,) = content["state_optimizer"]["param_groups"][1]["params"]
    found = {}
    for key, value in _tensors(content["state_optimizer"]["state"].get(number, {})).items():
        if value.dim() and value.shape != rows_cD.shape:
            raise ValueError(
                f"{key} of the class rows in state_optimizer has the shape {tuple(value.shape)}, and they have "
                f"{tuple(rows_cD.shape)}"
            )
        counts_c = torch.full((len(rows_cD),), int(value) if key == "step" else 0, dtype=torch.int32)
        found[_ROW_STATE[key]] = counts_c if key == "step" else value.float()
    return found


def state_optimizer(
    course: Course,
    parameters: Sequence[str],
    backbone: Mapping[str, Tensor],
    rows: Mapping[str, Tensor],
    gradient_scale: float,
) -> dict[str, Any]:
    """``state_optimizer`` of a rank, the inverse of :func:`backbone_state` and :func:`row_state`.

    ``gradient_scale``: by how much a gradient of the rows is larger here than there.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for number, name in enumerate(parameters):
        prefix = f"optimizer.{name}."
        entry = {key.removeprefix(prefix): value for key, value in backbone.items() if key.startswith(prefix)}
        state |= {number: entry} if entry else {}
    entry = {key: rows[name] for key, name in _ROW_STATE.items() if name in rows}
    for key in _GRADIENTS.keys() & entry.keys():
        entry[key] = entry[key].float() / gradient_scale ** _GRADIENTS[key]
    if "step" in entry:  # one number there: that of the row that was moved most often
        entry["step"] = entry["step"].max().float() if len(entry["step"]) else torch.zeros(())
    state |= {len(parameters): entry} if entry else {}
    numbers = [list(range(len(parameters))), [len(parameters)]]
    groups = [{**group, "params": params} for group, params in zip(course.groups, numbers, strict=True)]
    return {"state": state, "param_groups": groups}


def _tensors(entry: Mapping[str, Any]) -> dict[str, Tensor]:
    """The known tensors of one parameter's state."""
    return {key: torch.as_tensor(value) for key, value in entry.items() if key in _ROW_STATE and value is not None}


def _told(group: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a parameter group."""
    return {key: value for key, value in _plain(group).items() if key != "params"}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON holds of ``values``; a number in a tensor as a number."""
    numbers = {key: value.item() if isinstance(value, Tensor) else value for key, value in values.items()}
    return {
        key: list(value) if isinstance(value, list | tuple) else value
        for key, value in numbers.items()
        if isinstance(value, bool | int | float | None)
        or (isinstance(value, list | tuple) and all(isinstance(each, int | float) for each in value))
    }
