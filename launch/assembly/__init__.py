"""A run's parts, made from its configuration."""

from launch.assembly.data import (
    batch_shares,
    identities,
    image_format,
    loader,
    numbering,
    open_held_out,
    open_training_data,
    quarantined,
)
from launch.assembly.disk import refuse_small_disk
from launch.assembly.model import (
    autocast,
    backbone,
    compiled,
    head,
    is_compiled,
    network,
    objective,
    refuse_unfit_objectives,
    replicated,
    row_optimizer,
)
from launch.assembly.optimizer import optimizer, rate_setter
from launch.assembly.run import run
from launch.assembly.sinks import open_sinks

__all__ = [
    "autocast",
    "backbone",
    "batch_shares",
    "compiled",
    "head",
    "identities",
    "image_format",
    "is_compiled",
    "loader",
    "network",
    "numbering",
    "objective",
    "open_held_out",
    "open_sinks",
    "open_training_data",
    "optimizer",
    "quarantined",
    "rate_setter",
    "refuse_small_disk",
    "refuse_unfit_objectives",
    "replicated",
    "row_optimizer",
    "run",
]
