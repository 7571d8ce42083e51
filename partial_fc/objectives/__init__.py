"""The losses, as modules that hold their state: one table by name.

Every loss here is a rule for the slope ``r_ij = ∂loss_i/∂c_ij`` of a cosine. An objective is asked once a step, with
the target cosines of the global batch in hand and a way to sum over the other classes; it answers with
:class:`~partial_fc.slopes.Slopes`. It never sees the (N, C) matrix, never knows which rank it is on, and never divides
by N. The arguments of its constructor, but ``num_classes``, are the keys of the configuration's section ``objective``
(``launch/config/objectives.py``).
"""

from partial_fc.objectives.adacos import AdaCos
from partial_fc.objectives.combined_margin import CombinedMargin
from partial_fc.objectives.margins import ArcFace, CosFace, CosineSoftmax
from partial_fc.objectives.objective import Objective
from partial_fc.objectives.p2sgrad import P2SGrad

__all__ = ["OBJECTIVES", "AdaCos", "ArcFace", "CombinedMargin", "CosFace", "CosineSoftmax", "Objective", "P2SGrad"]

OBJECTIVES: dict[str, type[Objective]] = {
    "cosine_softmax": CosineSoftmax,
    "cosface": CosFace,
    "arcface": ArcFace,
    "combined_margin": CombinedMargin,
    "adacos": AdaCos,
    "p2sgrad": P2SGrad,
}
