"""Partial FC: classifiers with a cosine head and millions of identities, sharded over the ranks."""

from partial_fc.classifier import ShardedClassifier
from partial_fc.objectives import AdaCos, ArcFace, CosFace, CosineSoftmax, Objective, P2SGrad
from partial_fc.rows.optimizers import RowAdamW, RowOptimizer, RowSGD
from partial_fc.world import World, current_world, sum_gradients

__all__ = [
    "AdaCos",
    "ArcFace",
    "CosFace",
    "CosineSoftmax",
    "Objective",
    "P2SGrad",
    "RowAdamW",
    "RowOptimizer",
    "RowSGD",
    "ShardedClassifier",
    "World",
    "current_world",
    "sum_gradients",
]
__version__ = "0.1.0"
