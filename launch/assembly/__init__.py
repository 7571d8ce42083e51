"""A run's parts, made from its configuration."""

from launch.assembly.bad_images import agreed_bad_images
from launch.assembly.data import batch_shares, image_format, loader, open_records, open_training_data
from launch.assembly.model import autocast, backbone, compiled, head, replicated
from launch.assembly.optimizer import optimizer, rate_setter
from launch.assembly.sinks import sinks

__all__ = [
    "agreed_bad_images",
    "autocast",
    "backbone",
    "batch_shares",
    "compiled",
    "head",
    "image_format",
    "loader",
    "open_records",
    "open_training_data",
    "optimizer",
    "rate_setter",
    "replicated",
    "sinks",
]
