"""What is known of tables before one is opened: their suffixes, and which columns are asked for."""

from __future__ import annotations

from typing import NamedTuple

SUFFIXES = (".parquet", ".arrow", ".feather")


class ColumnNames(NamedTuple):
    """The names of a table's columns; None is for one that its type and its name tell."""

    image: str | None = None
    label: str | None = None


GUESSED = ColumnNames()


class ColumnError(ValueError):
    """A column was named that the table has not, or none was and the table does not tell; says what to name instead."""
