"""Optimizers of class rows, applied in the sweep that makes the gradient: no gradient of the weights' size exists.

Rows have unit length and stay so: each update ends with a retraction to the sphere, in the same pass. Legend: ``c``
rows of this rank, ``b`` of one block, ``D`` dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from partial_fc.fused import fused_on_gpus
from partial_fc.rows.rounding import rounded_to_bfloat16, row_keys
from partial_fc.rows.sharding import Columns
from partial_fc.rows.sphere import step_on_sphere_
from partial_fc.rows.update import Update
from partial_fc.scratch import Scratch

STATE_DTYPES = (torch.float32, torch.bfloat16)
_ROWS, _FIRST_MOMENT, _SECOND_MOMENT = range(3)  # streams of chances


class RowOptimizer(nn.Module):
    """What every optimizer of class rows shares: ``w ← d / |d|`` with ``d = (1 - η λ) w - η u``.

    ``u`` is the subclass's direction, from the gradient of the loss's SUM over the global batch. Rows that take no
    part in a step (class sampling) keep weight and state unchanged. ``weight_decay`` λ shortens a row before its step;
    as the row is then brought back to unit length, it lengthens the step by 1/(1 - η λ) and does nothing else.

    ``clip`` shortens a row's gradient to ``clip`` times the steepest slope of one image (:attr:`Slopes.steepest`) where
    that gradient, a sum over the batch, is longer: a row that many images push in one step would be thrown past them.
    None leaves gradients as they are.

    Rows and state may be kept in bfloat16: they are computed in float32 and rounded stochastically, by (seed, step,
    class id), so that steps below the last place arrive on average.
    """

    learning_rate: float
    state_names: tuple[str, ...] = ()

    def __init__(
        self, learning_rate: float, weight_decay: float, state_dtype: torch.dtype, clip: float | None = None
    ) -> None:
        super().__init__()
        if not 0 <= learning_rate < math.inf or not 0 <= weight_decay < math.inf:
            raise ValueError(
                f"learning_rate={learning_rate}, weight_decay={weight_decay}: expected finite numbers of at least 0"
            )
        if state_dtype not in STATE_DTYPES:
            raise ValueError(f"state_dtype={state_dtype}: expected torch.float32 or torch.bfloat16")
        if clip is not None and not 0 < clip < math.inf:
            raise ValueError(f"clip={clip}: expected a positive number, or None")
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.state_dtype = state_dtype
        self.clip = clip
        self.first_class, self.seed = 0, 0
        self._scratch = Scratch()
        self._applies: Tensor | None = None
        self._numbers: dict[tuple[float, float, torch.dtype], Tensor] = {}
        for name in self.state_names:
            self.register_buffer(name, None)

    def attach(self, rows_cD: Float[Tensor, "c D"], first_class: int = 0, seed: int = 0) -> None:
        """Make the state for these rows, of which the first is class ``first_class``; the classifier calls it once."""
        self.first_class, self.seed = first_class, seed
        for name, state in self._new_state(rows_cD).items():
            setattr(self, name, state)

    @torch.no_grad()
    def update(
        self,
        rows_cD: Tensor,
        columns: Columns,
        grad_bD: Float[Tensor, "b D"],
        step: int = 0,
        applies: Bool[Tensor, ""] | Bool[Tensor, "b 1"] | None = None,
    ) -> None:
        """Move the rows at ``columns`` against the summed gradient ``grad_bD`` and back to unit length.

        Where ``applies``, of all rows or of each, is False on the device, ``grad_bD`` is to be 0 there; then rows and
        state stay bitwise equal, by rates of 0 and decays of 1, and the host does not wait to learn of it.
        """
        if applies is not self._applies:  # a step's numbers serve all of its blocks: each is a kernel or two on a GPU
            self._applies, self._numbers = applies, {}
        update = Update(columns, step, applies, self._numbers)
        moved_bD = self._read("rows", rows_cD, columns, grad_bD)
        if self.weight_decay:
            moved_bD.mul_(update.number(1.0 - self.learning_rate * self.weight_decay, 1.0, moved_bD))
        # A tensor in any case: a number would be compiled into the kernel, each anew.
        rate = moved_bD.new_ones(()) * update.number(self.learning_rate, 0.0, moved_bD)
        moved_bD = _stepped_(moved_bD, self._direction(update, grad_bD), rate, applies)
        self._store(rows_cD, update, moved_bD, _ROWS)

    def _new_state(self, rows_cD: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def _direction(self, update: Update, grad_bD: Tensor) -> Tensor:
        raise NotImplementedError

    def _zeros_like(self, rows_cD: Tensor) -> Tensor:
        is_wide = rows_cD.dtype == torch.float64 and self.state_dtype == torch.float32
        return torch.zeros_like(rows_cD, dtype=rows_cD.dtype if is_wide else self.state_dtype)

    def _moment(
        self, state_cD: Tensor, update: Update, decay: float, added_bD: Tensor, weight: float, stream: int
    ) -> Tensor:
        """``decay · state + weight · added`` of the columns, which becomes their state."""
        moment_bD = self._read(f"moment {stream}", state_cD, update.columns, added_bD)
        moment_bD.mul_(update.number(decay, 1.0, moment_bD)).add_(added_bD, alpha=weight)
        self._store(state_cD, update, moment_bD, stream)
        return moment_bD

    def _read(self, name: str, state_cD: Tensor, columns: Columns, like: Tensor) -> Tensor:
        """The columns in the dtype of ``like``, to be overwritten."""
        if _is_in_place(state_cD, columns, like.dtype):
            return state_cD[columns]
        if isinstance(columns, slice):
            return self._scratch(name, like.shape, like).copy_(state_cD[columns])
        part_bD = torch.index_select(state_cD, 0, columns, out=self._scratch(name, like.shape, state_cD))
        return part_bD.to(like.dtype)

    def _store(self, state_cD: Tensor, update: Update, values_bD: Tensor, stream: int) -> None:
        """Make ``values_bD``, computed in what :meth:`_read` gave, the columns' state."""
        columns = update.columns
        if _is_in_place(state_cD, columns, values_bD.dtype):
            return
        if state_cD.dtype == torch.bfloat16 != values_bD.dtype:
            keys_b = row_keys(self.first_class + _numbers(columns, state_cD), self.seed, update.step, stream)
            values_bD = _rounded(values_bD, keys_b)
        if isinstance(columns, Tensor):
            state_cD.index_copy_(0, columns, values_bD.to(state_cD.dtype))
        else:
            state_cD[columns] = values_bD

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RowOptimizer:
        """Move with the module, but keep the state's own dtype, which a module made bfloat16 must not cut."""
        kept = {name: state for name in self.state_names if (state := getattr(self, name)) is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, state in kept.items():
            if torch.bfloat16 in (state.dtype, getattr(self, name).dtype) or getattr(self, name).dtype == torch.half:
                setattr(self, name, state.to(getattr(self, name).device))
        return self


class RowSGD(RowOptimizer):
    """SGD with momentum for class rows: ``v ← μ v + g``, ``w ← (w - η v) / |w - η v|``.

    ``g`` is the gradient of the loss's SUM over the global batch, not of its mean, so the learning rate is a step per
    positive: the pull of one image on its class does not fade as the batch grows.
    """

    momentum_cD: Tensor | None
    state_names = ("momentum_cD",)

    def __init__(
        self,
        learning_rate: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        state_dtype: torch.dtype = torch.float32,
        clip: float | None = None,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"learning_rate={learning_rate}, momentum={momentum}: expected a momentum in [0, 1)")
        super().__init__(learning_rate, weight_decay, state_dtype, clip)
        self.momentum = momentum

    def _new_state(self, rows_cD: Tensor) -> dict[str, Tensor]:
        return {"momentum_cD": self._zeros_like(rows_cD)} if self.momentum else {}

    def _direction(self, update: Update, grad_bD: Tensor) -> Tensor:
        if self.momentum_cD is None:
            return grad_bD
        return self._moment(self.momentum_cD, update, self.momentum, grad_bD, 1.0, _FIRST_MOMENT)


class RowAdamW(RowOptimizer):
    """AdamW for class rows (Loshchilov and Hutter, 1711.05101): ``u = m̂ / (√v̂ + ε)``, then the way back to unit length.

    The bias is corrected by each row's own number of updates, so that rows drawn rarely (class sampling) start as
    rows drawn always do. As ``u`` does not depend on the gradient's scale, nor does the step on the batch's size.
    """

    first_moment_cD: Tensor | None
    second_moment_cD: Tensor | None
    updates_c: Tensor | None
    state_names = ("first_moment_cD", "second_moment_cD", "updates_c")

    def __init__(
        self,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        state_dtype: torch.dtype = torch.float32,
        clip: float | None = None,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas) or not 0 < eps < math.inf:
            raise ValueError(f"betas={betas}, eps={eps}: expected betas in [0, 1) and a positive eps")
        super().__init__(learning_rate, weight_decay, state_dtype, clip)
        self.betas = betas
        self.eps = eps

    def _new_state(self, rows_cD: Tensor) -> dict[str, Tensor]:
        return {
            "first_moment_cD": self._zeros_like(rows_cD),
            "second_moment_cD": self._zeros_like(rows_cD),
            "updates_c": torch.zeros(len(rows_cD), dtype=torch.int32, device=rows_cD.device),
        }

    def _direction(self, update: Update, grad_bD: Tensor) -> Tensor:
        first_cD, second_cD, updates_c = self.first_moment_cD, self.second_moment_cD, self.updates_c
        assert first_cD is not None
        assert second_cD is not None
        assert updates_c is not None
        (beta_1, beta_2), square_bD = self.betas, grad_bD.square()
        first_bD = self._moment(first_cD, update, beta_1, grad_bD, 1.0 - beta_1, _FIRST_MOMENT)
        second_bD = self._moment(second_cD, update, beta_2, square_bD, 1.0 - beta_2, _SECOND_MOMENT)
        updates_c[update.columns] += 1 if update.applies is None else update.applies.flatten()
        updates_b1 = updates_c[update.columns].clamp(min=1).to(grad_bD.dtype).unsqueeze(1)
        root_bD = (second_bD / (1.0 - beta_2**updates_b1)).sqrt_().add_(self.eps)
        return (first_bD / (1.0 - beta_1**updates_b1)).div_(root_bD)


_stepped_ = fused_on_gpus(step_on_sphere_)
_rounded = fused_on_gpus(rounded_to_bfloat16)


def _is_in_place(state_cD: Tensor, columns: Columns, dtype: torch.dtype) -> bool:
    """Whether what is computed of these columns in ``dtype`` overwrites the state itself."""
    return isinstance(columns, slice) and state_cD.dtype == dtype


def _numbers(columns: Columns, rows: Tensor) -> Tensor:
    """The column numbers of a slice."""
    if isinstance(columns, Tensor):
        return columns
    return torch.arange(*columns.indices(len(rows)), device=rows.device)
