"""The names of a table's columns on a command line."""

from __future__ import annotations

import argparse

from data_pipeline.formats.table.names import ColumnNames


def add_column_arguments(parser: argparse.ArgumentParser) -> None:
    """The columns of Parquet and Arrow files, for tables whose columns have names of their own."""
    for what in ColumnNames._fields:
        parser.add_argument(f"--{what}-column", metavar="NAME", help=f"of .parquet and .arrow: where the {what}s are")


def columns_of(arguments: argparse.Namespace) -> ColumnNames:
    """What was given for :func:`add_column_arguments`."""
    return ColumnNames(arguments.image_column, arguments.label_column)
