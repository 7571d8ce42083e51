"""How tables and lists are read, on a command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_pipeline.formats.table.names import ColumnNames


def add_column_arguments(parser: argparse.ArgumentParser) -> None:
    """The columns of tables whose columns have names of their own, and the folder that the paths of lists begin in."""
    for what in ColumnNames._fields:
        parser.add_argument(f"--{what}-column", metavar="NAME", help=f"of .parquet and .arrow: where the {what}s are")
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="of lists: where their paths begin")


def columns_of(arguments: argparse.Namespace) -> ColumnNames:
    """What was given for :func:`add_column_arguments`."""
    return ColumnNames(arguments.image_column, arguments.label_column)
