"""The command line of a benchmark."""

from __future__ import annotations

import argparse


def parser(name: str, page: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m benchmarks.NAME` that shows the module's docstring, `page`, as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=page, formatter_class=argparse.RawDescriptionHelpFormatter
    )
