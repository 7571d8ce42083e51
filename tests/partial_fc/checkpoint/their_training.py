"""A small training that is what arcface_torch does, in plain torch, and saves what arcface_torch saves."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from partial_fc.backbones import backbone
from partial_fc.rows.sharding import class_range

CLASSES, DIM, BATCH, SIZE = 23, 32, 32, 16  # 23: no number of ranks deals them out evenly
SCALE, MARGIN, CLIP = 64.0, 0.4, 5.0
LENGTH = 6.0  # about what rows grow to
RATE, TOTAL_STEPS, EPOCH_STEPS = 0.1, 4000, 20
ADAMW_RATE, ADAMW_DECAY = 1e-2, 0.1
PEOPLE = torch.randn(CLASSES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


with torch.random.fork_rng():
    torch.manual_seed(5)
    _FIRST = backbone("r18", width=4, embedding_dim=DIM, input_size=SIZE)


def network() -> nn.Module:
    """The network with its first weights, for ranks that are threads and draw from one generator as well."""
    return copy.deepcopy(_FIRST)


def batch(step: int) -> tuple[Tensor, Tensor]:
    """The images and labels of a step: a picture of each class, under noise."""
    generator = torch.Generator().manual_seed(100 + step)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    return PEOPLE[labels] + 0.7 * torch.randn(BATCH, 3, SIZE, SIZE, generator=generator), labels


class TheirTraining:
    """One optimizer of two groups, rows normalised in the forward pass, CosFace, a polynomial schedule.

    ``ranks`` have a part of each batch with statistics of its own for BatchNorm. With ``equal_lengths`` all rows have
    one length and are brought back to it after each step, undecayed: then our arithmetic is theirs, but for rounding.
    """

    def __init__(self, ranks: int, optimizer: str = "sgd", *, equal_lengths: bool = False) -> None:
        self.backbone, self.ranks, self.equal_lengths = network().train(), ranks, equal_lengths
        self.buffers = [{key: each.clone() for key, each in self.backbone.named_buffers()} for _ in range(ranks)]
        rows_CD = 0.5 * torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(2))
        self.length = LENGTH
        self.weight = nn.Parameter(self.length * functional.normalize(rows_CD) if equal_lengths else rows_CD)
        groups = [{"params": list(self.backbone.parameters())}, {"params": [self.weight]}]
        if optimizer == "adamw":
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=ADAMW_RATE, weight_decay=ADAMW_DECAY)
        else:
            self.optimizer = torch.optim.SGD(groups, lr=RATE, momentum=0.9, weight_decay=5e-4)
        if equal_lengths:
            self.optimizer.param_groups[1]["weight_decay"] = 0.0
        self.scheduler = torch.optim.lr_scheduler.PolynomialLR(self.optimizer, total_iters=TOTAL_STEPS)
        self.step = 0

    def train(self, steps: int) -> list[float]:
        """The losses of so many further steps."""
        return [self._step() for _ in range(steps)]

    def _step(self) -> float:
        images, labels = batch(self.step)
        parts = [
            torch.func.functional_call(self.backbone, (dict(self.backbone.named_parameters()), buffers), (part,))
            for buffers, part in zip(self.buffers, images.tensor_split(self.ranks), strict=True)
        ]
        cosines = functional.normalize(torch.cat(parts)) @ functional.normalize(self.weight).T
        loss = functional.cross_entropy(SCALE * (cosines - MARGIN * functional.one_hot(labels, CLASSES)), labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.backbone.parameters(), CLIP)
        self.optimizer.step()
        self.scheduler.step()
        if self.equal_lengths:
            self.weight.data.mul_(self.length / self.weight.data.norm(dim=1, keepdim=True))
        self.step += 1
        return float(loss.detach())

    def save(self, folder: Path, **changes: object) -> None:
        """Write ``checkpoint_gpu_{rank}.pt`` of every rank; ``changes`` are laid over what it holds."""
        folder.mkdir(parents=True, exist_ok=True)
        state = self.optimizer.state_dict()
        last = len(state["param_groups"][0]["params"])
        for rank in range(self.ranks):
            classes = class_range(CLASSES, rank, self.ranks)
            part = slice(classes.start, classes.stop)
            own = {
                key: value[part].clone() if value.dim() else value
                for key, value in state["state"].get(last, {}).items()
            }
            content = {
                "epoch": self.step // EPOCH_STEPS,
                "global_step": self.step,
                "state_dict_backbone": {**self.backbone.state_dict(), **self.buffers[rank]},
                "state_dict_softmax_fc": {"weight": self.weight.detach()[part].clone()},
                "state_optimizer": {**state, "state": {**state["state"], last: own}},
                "state_lr_scheduler": self.scheduler.state_dict(),
            }
            torch.save({**content, **changes}, folder / f"checkpoint_gpu_{rank}.pt")

    def load(self, folder: Path) -> None:
        """Go on from what ``folder`` holds, as their ``resume = True`` does, on as many ranks as wrote it."""
        contents = [torch.load(folder / f"checkpoint_gpu_{rank}.pt", weights_only=True) for rank in range(self.ranks)]
        self.backbone.load_state_dict(contents[0]["state_dict_backbone"])
        for buffers, content in zip(self.buffers, contents, strict=True):
            for name, buffer in buffers.items():
                buffer.copy_(content["state_dict_backbone"][name])
        heads = [content["state_dict_softmax_fc"]["weight"] for content in contents]
        self.weight.data.copy_(torch.cat(heads))
        states = [content["state_optimizer"] for content in contents]
        (last,) = states[0]["param_groups"][1]["params"]
        own = [state["state"].get(last, {}) for state in states]
        whole = {key: torch.cat([each[key] for each in own]) if own[0][key].dim() else own[0][key] for key in own[0]}
        self.optimizer.load_state_dict({**states[0], "state": {**states[0]["state"], last: whole}})
        self.scheduler.load_state_dict(contents[0]["state_lr_scheduler"])
        self.step = contents[0]["global_step"]
