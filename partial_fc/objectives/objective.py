"""What every loss is: a module that is asked once a step and answers with slopes."""

from __future__ import annotations

from torch import nn

from partial_fc.slopes import Cosines, Slopes


class Objective(nn.Module):
    """A cosine loss. Subclasses answer :meth:`forward`; state they keep is a buffer and changes in training only.

    ``is_quadratic``: its slopes are linear in the cosines (:attr:`Slopes.linear_weight`), so no cosine need be made.
    ``is_sparse``: other classes have a slope only above a cosine (:attr:`Slopes.near_above`), which few reach.
    """

    is_quadratic = False
    is_sparse = False

    def refuse_unfit(self, num_classes: int, embedding_dim: int) -> None:
        """Raise ValueError for a classifier that this loss cannot train; called when the classifier is made."""

    def forward(self, cosines: Cosines) -> Slopes:
        """The loss and the slopes of one step."""
        raise NotImplementedError
