"""The classifiers that are measured: ours, the dense model of the field, or any module with the field's signature."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.classifier.case import CHUNKED, DENSE, DTYPES, OBJECTIVES, OURS, Case
from benchmarks.classifier.chunked_classifier import ChunkedClassifier
from benchmarks.classifier.dense_classifier import CosFaceLogits, DenseClassifier
from partial_fc import RowAdamW, RowSGD, ShardedClassifier
from partial_fc.world import World

LEARNING_RATE = 0.01
_ROWS_AT_ONCE = 4096
_CENTRES_SEED = 1_000_003  # none of those that rows are made with


class Contender(NamedTuple):
    """A classifier, what it is called with beside a batch, and what steps its rows: None where `backward` does."""

    module: nn.Module
    known: Mapping[str, Any]
    optimizer: torch.optim.Optimizer | None

    def step(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of one whole step: forward, backward, and the rows moved."""
        loss = self.module(embeddings, labels, **self.known)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"{type(self.module).__name__} returned {found}: expected the loss, a scalar tensor")
        loss.backward()  # type: ignore[no-untyped-call]
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    @property
    def weight_bytes(self) -> int:
        """The size of the parameters here."""
        return sum(parameter.nbytes for parameter in self.module.parameters())

    @property
    def state_bytes(self) -> int:
        """The size of what the optimizer, of ours or of torch, keeps beside them."""
        kept = [] if self.optimizer is None else self.optimizer.state.values()
        tensors = [value for state in kept for value in state.values() if isinstance(value, Tensor)]
        return sum(tensor.nbytes for tensor in [*self.module.buffers(), *tensors])


def contender(name: str, case: Case, world: World, device: torch.device) -> Contender:
    """The contender called `name`, on `device`, in training. ValueError where a foreign one cannot be had."""
    if name == OURS:
        module = _ours(case, world)
        known = {"counts": [case.batch // world.size] * world.size}  # as in training: no rank asks the others
    else:
        kinds = {DENSE: DenseClassifier, CHUNKED: ChunkedClassifier}
        module = _other(name, kinds.get(name) or foreign_class(name), case, world)
        known = {}
    module = module.to(device).train()
    if case.near_classes:
        _group_rows(module, case.near_classes)
    if name == OURS and case.row_optimizer != "none":
        return Contender(module, known, None)
    return Contender(module, known, torch.optim.SGD(module.parameters(), lr=LEARNING_RATE, momentum=case.momentum))


@torch.no_grad()
def _group_rows(module: nn.Module, near_classes: int) -> None:
    """Put the rows into groups of so many and one more, at a cosine of a half to each other: as in a trained network.

    An image at 45 degrees to its class is then at a cosine of 0.35 to the rest of the group.
    """
    (rows_CD,) = module.parameters()
    numbers = torch.arange(len(rows_CD), device=rows_CD.device) // (near_classes + 1)
    generator = torch.Generator(rows_CD.device).manual_seed(_CENTRES_SEED)
    shape = int(numbers[-1]) + 1, rows_CD.shape[1]
    centres = torch.randn(shape, generator=generator, device=rows_CD.device)
    for some in torch.split(torch.arange(len(rows_CD), device=rows_CD.device), _ROWS_AT_ONCE):
        own = nn.functional.normalize(rows_CD[some])
        rows_CD[some] = nn.functional.normalize(own + nn.functional.normalize(centres[numbers[some]]))


def check_foreign_file(name: str) -> None:
    """ValueError unless the file of `PATH:CLASS` is there; what is in it shows when it is run."""
    path, _, _ = name.rpartition(":")
    if not Path(path).is_file():
        raise ValueError(f"{name}: there is no file {path!r}; expected PATH:CLASS, such as heads/mine.py:MyHead")


def foreign_class(name: str) -> type[nn.Module]:
    """The class that `PATH:CLASS` names. ValueError: no such file, no such class in it, or no `nn.Module`."""
    check_foreign_file(name)
    path, _, class_name = name.rpartition(":")
    spec = importlib.util.spec_from_file_location(f"against_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{name}: {path} is no Python file")
    source = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(path).resolve().parent))  # its neighbours are its to import, as if it were run
    spec.loader.exec_module(source)
    modules = {k: v for k, v in vars(source).items() if isinstance(v, type) and issubclass(v, nn.Module)}
    if class_name not in modules:
        has = ", ".join(modules) or "none"
        raise ValueError(f"{name}: {path} has no torch.nn.Module {class_name!r}; it has {has}")
    return modules[class_name]


def _ours(case: Case, world: World) -> nn.Module:
    state_dtype = DTYPES[case.state_dtype]
    optimizers = {
        "sgd": RowSGD(LEARNING_RATE, case.momentum, state_dtype=state_dtype, clip=case.clip),
        "adamw": RowAdamW(LEARNING_RATE, state_dtype=state_dtype, clip=case.clip),
    }
    return ShardedClassifier(
        case.num_classes,
        case.embedding_dim,
        OBJECTIVES[case.objective](case.num_classes),
        world=world,
        sample_rate=case.sample_rate,
        row_optimizer=optimizers.get(case.row_optimizer),
        cosines=case.cosines,
        gram=case.gram,
        near=case.near,
        product_dtype=None if case.dtype == "float32" else DTYPES[case.dtype],
        weight_dtype=DTYPES[case.weight_dtype],
    )


def _other(name: str, kind: type[nn.Module], case: Case, world: World) -> nn.Module:
    """`CLASS(num_classes=, embedding_dim=)`, with more where its signature names it, else the field's four in order."""
    rate, signature = case.rate_against, inspect.signature(kind)
    known: dict[str, Any] = {"num_classes": case.num_classes, "embedding_dim": case.embedding_dim, "sample_rate": rate}
    known |= {"product_dtype": DTYPES[case.against_dtype], "world": world}
    taken = {key: value for key, value in known.items() if key in signature.parameters}
    if {"num_classes", "embedding_dim"} <= taken.keys():
        if rate < 1.0 and "sample_rate" not in taken:
            raise ValueError(f"{name} takes no sample_rate: expected a rate of 1, got {rate}")
        return kind(**taken)
    field = (CosFaceLogits(), case.embedding_dim, case.num_classes, rate)
    try:
        signature.bind(*field)
    except TypeError:
        raise ValueError(
            f"{name} takes {signature}: expected (num_classes, embedding_dim) "
            "or (margin_loss, embedding_size, num_classes, sample_rate)"
        ) from None
    return kind(*field)
