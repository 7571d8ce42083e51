"""The names of a table's columns on a command line."""

from __future__ import annotations

import argparse

from data_pipeline.formats.table.columns import Columns


def add_column_arguments(parser: argparse.ArgumentParser) -> None:
    """The columns of Parquet and Arrow files, for tables whose columns have names of their own."""
    for what in Columns._fields:
        parser.add_argument(f"--{what}-column", metavar="NAME", help=f"of .parquet and .arrow: where the {what}s are")


def columns_of(arguments: argparse.Namespace) -> Columns:
    """What was given for :func:`add_column_arguments`."""
    return Columns(arguments.image_column, arguments.label_column)
