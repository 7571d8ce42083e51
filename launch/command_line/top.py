"""``partial-fc top``."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to watch, and how often to look."""
    parser.add_argument(
        "watched",
        nargs="+",
        metavar="RUN|URL",
        help="a run's folder, or the metrics endpoints of its ranks: http://127.0.0.1:9410/metrics, 127.0.0.1:9411",
    )
    parser.add_argument("--once", action="store_true", help="print once and end, as where standard output is a file")
    parser.add_argument("--every", type=_seconds, default=2.0, metavar="SECONDS", help="how often to look (2)")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds, 0.1 to 3600")
    return seconds
