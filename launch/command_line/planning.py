"""``partial-fc plan``."""

from __future__ import annotations

import argparse

from launch.config.section import user_path
from launch.units import parsed_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The config, the GPUs, what they can do, and where the plan goes."""
    parser.add_argument("config", type=user_path, metavar="CONFIG", help="a YAML file, such as configs/webface42m.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one value: backbone.name=r50"
    )
    parser.add_argument("--gpus", type=_count, default=8, metavar="N", help="the number the parts are shown for (8)")
    parser.add_argument("--gpu-memory", type=_size, default="80GiB", metavar="SIZE", help="of each (80GiB)")
    parser.add_argument(
        "--num-classes", type=_count, metavar="C", help="instead of data.num_classes or what the data itself says"
    )
    parser.add_argument(
        "--fixed-batch", action="store_true", help="keep the global batch; else each GPU keeps its images"
    )
    parser.add_argument(
        "--reserve",
        type=_size,
        default="4GiB",
        metavar="SIZE",
        help="for the CUDA context, NCCL, cuDNN, images on their way, fragmentation (4GiB, a guess)",
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="what the ranks run on")
    parser.add_argument(
        "--rates", type=user_path, metavar="FILE", help="JSON with rates in place of those assumed of an H100 SXM"
    )
    parser.add_argument("--measure", action="store_true", help="measure products and memory on this machine instead")
    parser.add_argument("--json", type=user_path, metavar="FILE", help="write the whole plan there")
    parser.add_argument("--picture", type=user_path, metavar="FILE", help="draw it: .svg, .png or .pdf")


def _count(text: str) -> int:
    if not text.replace("_", "").isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, at least 1")
    return int(text)


def _size(text: str) -> int:
    try:
        return parsed_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
