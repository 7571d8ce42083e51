"""Partial FC: classifiers with a cosine head and millions of identities, sharded over the ranks.

The life of a class row, one of C rows of D numbers, in a run of many ranks::

    rows.sharding.class_range         the row belongs to one rank: shards are contiguous and differ by one class at most
    rows.sampling.initial_rows        the row starts as a random direction, a function of (seed, class id) alone
    rows.optimizers.attach            its optimizer state is made beside it
    for each step:                    ShardedClassifier.forward and backward, on every rank
      rows.known_rows.known             is the row still of unit length since the last step? If not, it is made so
      rows.sampling.drawn_columns       does the row take part? Always if its class is in the batch, or at sample_rate 1
      Sweep._block                      the row is read with some thousand others, what a CPU's cache or a GPU holds
        Sweep._cosines                    its cosines with the whole global batch: one product
        objectives, slopes                the loss, from sums over all rows of all ranks (World.all_sum)
        Sweep.row_gradients               slopes times embeddings: the row's gradient, tangent to the sphere
        RowOptimizer.update               the row moves and is brought back to unit length while it is in the cache
      GramSweep.row_gradients           P2SGrad: no cosines; the row is read once, moved, and added to the Gram matrix
    checkpoint.saving                 the row is saved with its identity, and loads on any rank, under any label

Without a row optimizer the gradient goes to ``weight.grad`` instead, for any optimizer of torch's. A batch's embeddings
travel the other way: gathered from all ranks (``World.gather_rows``), multiplied with every shard, and their gradient
summed back to the rank they came from (``World.start_scatter_sum_rows``).
"""

from partial_fc.classifier import ShardedClassifier
from partial_fc.inference.model import Model, load
from partial_fc.objectives import AdaCos, ArcFace, CombinedMargin, CosFace, CosineSoftmax, Objective, P2SGrad
from partial_fc.rows.optimizers import RowAdamW, RowOptimizer, RowSGD
from partial_fc.world import World, current_world, sum_gradients

__all__ = [
    "AdaCos",
    "ArcFace",
    "CombinedMargin",
    "CosFace",
    "CosineSoftmax",
    "Model",
    "Objective",
    "P2SGrad",
    "RowAdamW",
    "RowOptimizer",
    "RowSGD",
    "ShardedClassifier",
    "World",
    "current_world",
    "load",
    "sum_gradients",
]
__version__ = "0.1.0"
