"""``partial-fc train`` and its ranks."""

from __future__ import annotations

import argparse

from launch.config.section import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every way of starting a run shares."""
    parser.add_argument("config", type=user_path, metavar="CONFIG", help="a YAML file, such as configs/synthetic.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one value: schedule.epochs=3"
    )
