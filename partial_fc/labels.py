"""A global batch's labels: how many each rank has, and those out of range, refused on all ranks while no GPU waits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from partial_fc import late_answer
from partial_fc.world import World


def agreed_counts(labels_n: Int[Tensor, " n"], world: World) -> list[int]:
    """Every rank's number of labels. One all-gather of a number a rank, read by the host.

    ValueError, on all ranks, where no rank has any.
    """
    counts: list[int] = world.all_gather(torch.tensor(len(labels_n), device=labels_n.device)).tolist()
    if not any(counts):
        raise ValueError("the global batch is empty: expected at least one row on some rank")
    return counts


def checked_counts(counts: Sequence[int], labels_n: Int[Tensor, " n"], world: World) -> list[int]:
    """``counts``, the numbers that every rank was told, as a list; ValueError where this rank's is another."""
    if len(counts) != world.size or counts[world.rank] != len(labels_n) or not any(counts):
        raise ValueError(
            f"counts={list(counts)} for {len(labels_n)} rows on rank {world.rank} of {world.size}: "
            "expected every rank's number of rows, at least one of them above 0"
        )
    return list(counts)


class LabelCheck:
    """Looks at each global batch's labels, which every rank has: so all ranks come to the same verdict unasked."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._seen: tuple[Tensor, Tensor, list[int]] | None = None
        self._verdict: late_answer.LateAnswer | None = None

    def check(self, labels_N: Int[Tensor, " N"], counts: Sequence[int]) -> None:
        """Note which labels are out of range. ``counts`` are the ranks' shares of the batch."""
        is_bad_N = (labels_N < 0) | (labels_N >= self.num_classes)
        self._seen = labels_N, is_bad_N, list(counts)
        self._verdict = late_answer.LateAnswer(is_bad_N.any())

    def masked(self, embeddings_nD: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """``embeddings_nD``, or NaN where the last check found a bad label and has not raised for it yet.

        The loss and all statistics of such a step are NaN then, and nothing is learnt from the step.
        """
        return embeddings_nD if self._seen is None else torch.where(self._seen[1].any(), torch.nan, embeddings_nD)

    def raise_if_bad(self) -> None:
        """Raise ValueError with the first bad label, its rank and the range, if the last check found one.

        Waits for that check, not for what a GPU was given to do since.
        """
        seen, self._seen = self._seen, None
        if seen is None or self._verdict is None or not self._verdict.read():
            return
        labels_N, is_bad_N, counts = seen
        row = int(torch.nonzero(is_bad_N)[0])
        rank = next(rank for rank in range(len(counts)) if row < sum(counts[: rank + 1]))
        raise ValueError(
            f"label {int(labels_N[row])} on rank {rank} is out of range: "
            f"expected 0 <= label < num_classes={self.num_classes}"
        )
