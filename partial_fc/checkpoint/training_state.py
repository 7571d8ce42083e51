"""All that a training run needs to go on as if it had never stopped, as tensors by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from partial_fc.checkpoint.identities import IDENTITY
from partial_fc.classifier import ShardedClassifier
from partial_fc.divergence import LossCourse
from partial_fc.rows.optimizers import RowAdamW, RowSGD
from partial_fc.world import World

ROW_KEYS = ("weight", *(f"row_optimizer.{name}" for kind in (RowSGD, RowAdamW) for name in kind.state_names))
_CPU_RNG, _GPU_RNG, _COURSE = "rng.cpu", "rng.cuda", "loss_course"


@dataclass(frozen=True)
class TrainingState:
    """The parts of a run that change while it trains. The order of samples and the rates follow from the step.

    ``identities_c``: a key of the identity of each of this rank's class rows, int64, all different over all ranks. With
    it rows are found again by their identities, whatever labels these have then; without it by their labels.
    """

    backbone: nn.Module
    head: ShardedClassifier
    optimizer: torch.optim.Optimizer
    world: World
    course: LossCourse = field(default_factory=LossCourse)
    identities_c: Tensor | None = None

    def of_rank(self) -> dict[str, Tensor]:
        """This rank's own: class rows, whose they are and their optimizer's state, BatchNorm, random generators."""
        tensors = {f"row.{key}": tensor for key, tensor in rows_of(self.head).items()}
        if self.identities_c is not None:
            tensors[IDENTITY] = self.identities_c
        tensors |= {f"buffer.{name}": buffer for name, buffer in self.backbone.named_buffers()}
        tensors[_CPU_RNG] = torch.get_rng_state()
        if self.head.weight.is_cuda:
            tensors[_GPU_RNG] = torch.cuda.get_rng_state(self.head.weight.device)
        return tensors

    def shared(self) -> dict[str, Tensor]:
        """What is one for all ranks, the backbone aside: its optimizer's state by parameter, objective, losses."""
        tensors = {f"objective.{name}": buffer for name, buffer in self.head.objective.named_buffers()}
        tensors[_COURSE] = self.course.numbers()
        for name, parameter in self.backbone.named_parameters():
            for key, value in self._kept_of(parameter).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{name}.{key}"] = value
        return tensors

    def _kept_of(self, parameter: Tensor) -> dict[str, Any]:
        """What the optimizer keeps of ``parameter``; its count of steps too, where it has one for a whole group."""
        kept = dict(self.optimizer.state.get(parameter, {}))
        if kept and (group := _counting_group(self.optimizer, parameter)) is not None:
            kept["step"] = torch.tensor(float(group["step"]))
        return kept

    def bytes_to_come(self) -> int:
        """What the first step will add to :meth:`shared`: torch's optimizers make their state in it."""
        parameters = [each for each in self.backbone.parameters() if each not in self.optimizer.state]
        return len(_moments(self.optimizer)) * sum(each.nbytes for each in parameters if each.requires_grad)

    def averaged_buffers(self) -> dict[str, Tensor]:
        """The backbone's floating-point buffers, their mean over the ranks. One all-reduce of them all.

        Each rank keeps BatchNorm's statistics of its own images; what is evaluated and handed on is one network.
        """
        buffers = {name: buffer for name, buffer in self.backbone.named_buffers() if buffer.is_floating_point()}
        if not buffers:
            return {}
        flat = torch.cat([buffer.reshape(-1) for buffer in buffers.values()])
        mean = self.world.all_sum(flat) / self.world.size
        parts = torch.split(mean, [buffer.numel() for buffer in buffers.values()])
        return {name: part.view_as(buffer) for (name, buffer), part in zip(buffers.items(), parts, strict=True)}

    @torch.no_grad()
    def average_buffers_(self) -> None:
        """Give this rank's backbone the averaged buffers: it is then the network that a checkpoint holds."""
        buffers = dict(self.backbone.named_buffers())
        for name, mean in self.averaged_buffers().items():
            buffers[name].copy_(mean)

    @contextmanager
    def with_averaged_buffers(self) -> Iterator[None]:
        """For the block, this rank's backbone has the averaged buffers; then its own again, bitwise."""
        own = {name: buffer.detach().clone() for name, buffer in self.backbone.named_buffers()}
        self.average_buffers_()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, buffer in self.backbone.named_buffers():
                    buffer.copy_(own[name])

    @torch.no_grad()
    def load_shared(self, tensors: dict[str, Tensor]) -> None:
        """Take up :meth:`shared`. ValueError where the objective or the optimizer has another state."""
        objective = dict(self.head.objective.named_buffers())
        if objective.keys() != {name.removeprefix("objective.") for name in tensors if name.startswith("objective.")}:
            raise ValueError("it was trained with another objective")
        for name, buffer in self.head.objective.state_dict().items():  # less what follows from the number of classes
            buffer.copy_(tensors[f"objective.{name}"])
        if _COURSE in tensors:
            self.course.take_up(tensors[_COURSE])
        for name, parameter in self.backbone.named_parameters():
            prefix = f"optimizer.{name}."
            kept = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if kept:
                self._keep_of(parameter, kept)

    def _keep_of(self, parameter: Tensor, kept: dict[str, Tensor]) -> None:
        """Have the optimizer keep ``kept`` of ``parameter``. ValueError for the state of an optimizer of another kind.

        Of :meth:`_kept_of`, the inverse: a state goes from torch's AdamW to apex's and back.
        """
        if not (expected := _moments(self.optimizer)) <= kept.keys():
            raise ValueError(
                f"its optimizer kept {', '.join(sorted(kept.keys() - {'step'}))} of each weight, and this one keeps "
                f"{', '.join(sorted(expected))}"
            )
        group = _counting_group(self.optimizer, parameter)
        if group is not None and "step" in kept:
            group["step"] = int(kept.pop("step"))
        # AdamW counts its steps on the CPU unless it is fused: torch's own rule for a loaded state.
        place = parameter.device if self._counts_on_device() else torch.device("cpu")
        self.optimizer.state[parameter] = {
            key: _in_the_order_of(parameter, value) if value.dim() else value.to(place, copy=True)
            for key, value in kept.items()
        }

    @torch.no_grad()
    def load_local(self, tensors: dict[str, Tensor]) -> None:
        """Take up this rank's buffers and random generators, from :meth:`of_rank` of the same rank of as many."""
        for name, buffer in self.backbone.named_buffers():
            buffer.copy_(tensors[f"buffer.{name}"])
        torch.set_rng_state(tensors[_CPU_RNG])
        if _GPU_RNG in tensors and self.head.weight.is_cuda:
            torch.cuda.set_rng_state(tensors[_GPU_RNG], self.head.weight.device)

    def _counts_on_device(self) -> bool:
        return all(group.get("fused") or group.get("capturable") for group in self.optimizer.param_groups)


def _moments(optimizer: torch.optim.Optimizer) -> set[str]:
    """The names of what SGD, AdamW and LAMB keep of each weight."""
    first = optimizer.param_groups[0]
    return {"exp_avg", "exp_avg_sq"} if "betas" in first else {"momentum_buffer"} if first.get("momentum") else set()


def _counting_group(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Any] | None:
    """The group of ``parameter`` where groups count steps, as those of apex's AdamW and LAMB do; else None."""
    counting = [group for group in optimizer.param_groups if "step" in group]
    return next((group for group in counting if any(each is parameter for each in group["params"])), None)


def _in_the_order_of(parameter: Tensor, value: Tensor) -> Tensor:
    """``value`` where ``parameter`` is and with its strides: fused optimizers go over the memory of both alike."""
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def rows_of(head: ShardedClassifier) -> dict[str, Tensor]:
    """The class rows and their optimizer's state, each ``(c, ...)``: what moves with a class to another rank."""
    state = head.state_dict()
    return {key: state[key] for key in ROW_KEYS if isinstance(state.get(key), Tensor)}
