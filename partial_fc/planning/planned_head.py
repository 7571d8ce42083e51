"""The real classifier on fake tensors, on one of many imaginary ranks: sizes without numbers.

Legend: ``N`` rows of the global batch, ``n`` a rank's; ``D`` dimensions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from partial_fc.classifier import ShardedClassifier
from partial_fc.cosine_loss import CosineLoss, Step
from partial_fc.fused import compiler
from partial_fc.objectives import Objective
from partial_fc.planning.tensor_costs import TensorCosts
from partial_fc.rows.optimizers import RowOptimizer
from partial_fc.sweeps.near_sweep import look_dtype
from partial_fc.sweeps.sweep import Sweep
from partial_fc.world import World

_FEW_CLASSES = 3  # a rank, of which the classifier is made before it gets its fake rows: no objective takes fewer


@dataclass(frozen=True)
class HeadSpec:
    """A :class:`~partial_fc.ShardedClassifier` whose number of classes and of ranks are left open.

    ``objective`` is made for a number of classes; ``products`` are float32, tf32 or bfloat16; the other fields are the
    classifier's own arguments.
    """

    embedding_dim: int
    objective: Callable[[int], Objective]
    row_optimizer: Callable[[], RowOptimizer]
    sample_rate: float = 1.0
    block_classes: int | None = None
    products: str = "float32"
    weight_dtype: torch.dtype = torch.float32
    cosines: str = "auto"
    near: str = "auto"
    on_gpu: bool = True


class PlannedHead(ShardedClassifier):
    """The classifier of rank 0 of ``world``, which holds ``classes``, between two steps of ``batch`` images.

    For fake tensors: the rows have no numbers. ``kept_bytes``, where given, stands for what ``cosines`` says.
    """

    def __init__(self, spec: HeadSpec, world: World, classes: int, batch: int, kept_bytes: int | None = None) -> None:
        num_classes = _FEW_CLASSES * world.size
        super().__init__(
            num_classes,
            spec.embedding_dim,
            spec.objective(num_classes),
            world=world,
            sample_rate=spec.sample_rate,
            block_classes=spec.block_classes,
            product_dtype=torch.bfloat16 if spec.products == "bfloat16" else None,
            cosines=spec.cosines,
            near="never",  # how many classes are near is known to a training alone
        )
        dim, optimizer = spec.embedding_dim, spec.row_optimizer()
        goes_near = self.objective.is_sparse and spec.near != "never" and not spec.on_gpu
        self.keeps_int8 = goes_near and spec.cosines != "recompute"
        self.kept_bytes = kept_bytes
        self.shard = range(classes)
        self.weight = nn.Parameter(torch.empty(classes, dim, dtype=spec.weight_dtype))
        optimizer.attach(self.weight.detach())
        self.row_optimizer = optimizer
        self.row_state_bytes = sum(state.nbytes for state in optimizer.buffers())
        self.makes_cosines = not self._goes_by_gram(batch, dim)
        self._known_rows.remember(self.weight, None if self.makes_cosines else torch.empty(dim, dim))

    @torch.no_grad()
    def sweep(self, batch: int) -> Sweep:
        """The sweep of a step of ``batch`` images, before it has begun."""
        unit_ND, labels_N = torch.empty(batch, self.embedding_dim), torch.zeros(batch, dtype=torch.int64)
        return self._sweep(unit_ND, labels_N, [batch], self.product_dtype or self.weight.dtype)

    def step(self, embeddings_nD: Tensor, labels_N: Tensor, counts: list[int]) -> Step:
        """A step's forward and backward pass, once the labels are gathered and checked."""
        with torch.no_grad():
            step = self._step(embeddings_nD, labels_N, counts)
        CosineLoss.apply(embeddings_nD, self.weight, step).backward()  # type: ignore[no-untyped-call]
        return step

    def int8_bytes_of_row(self) -> int:
        """What the near road keeps of a row, with its step and its error, on a CPU that multiplies int8; else 0."""
        if not self.keeps_int8 or look_dtype(torch.float32) != torch.int8:
            return 0
        return self.embedding_dim + 2 * torch.promote_types(self.weight.dtype, torch.float32).itemsize

    def _kept_bytes(self) -> int:
        return super()._kept_bytes() if self.kept_bytes is None else self.kept_bytes


class ExpectedAnswers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers what fake tensors do not know: a truth value with True, and how many places of a mask are true.

    Of a mask of all ``classes`` they are the ``drawn`` ones, among which are those that fill up on a GPU; of a batch's
    targets, which CPUs list, a rank's share.
    """

    def __init__(self, classes: int, drawn: int, ranks: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.classes, self.drawn, self.ranks = classes, drawn, ranks

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator, or answer in its place."""
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool:
            return True  # the loss is finite
        if func not in (torch.ops.aten.nonzero.default, torch.ops.aten.nonzero_static.default):
            return func(*args, **(kwargs or {}))
        places = len(args[0])
        count = self.drawn if places == self.classes else -(-places // self.ranks)
        return args[0].new_empty(count, 1, dtype=torch.int64)


@contextmanager
def fake_tensors(*, on_gpu: bool, costs: TensorCosts) -> Iterator[None]:
    """Tensors without numbers, for a ``with`` block; with ``on_gpu`` the code takes a GPU's way with them.

    They say that they are on a GPU, and their device is the CPU still: PyTorch without CUDA neither slices nor
    differentiates fake tensors of a GPU. ``costs`` count what a GPU runs as one kernel.
    """
    token = compiler.set(costs.one_kernel)
    FakeTensor.is_cuda = on_gpu
    try:
        with FakeTensorMode(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
            yield
    finally:
        del FakeTensor.is_cuda
        compiler.reset(token)
