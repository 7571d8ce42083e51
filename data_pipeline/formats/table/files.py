"""Parquet and Arrow files, one shape for all: groups of rows, of which one column of one group is read at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow
import pyarrow.types as kinds
from pyarrow import ipc, parquet

ARROW_FILE_MAGIC = b"ARROW1"
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


class TableFile(Protocol):
    """An open table. Columns come as pyarrow arrays; `path` is that of a leaf, such as `image.bytes`."""

    schema: Any
    group_rows: Sequence[int]

    def labels(self, column: str) -> Any:
        """One column of all rows, as a chunked array."""

    def images(self, group: int, column: str) -> Any:
        """One column of one group, as an array."""

    def image_bytes(self, group: int, column: str) -> int:
        """What `images` will take of memory, about."""


def table_file(path: Path) -> TableFile:
    """The table in `path`, opened, with its foot or heads read and none of its rows; ValueError where it is none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; expected a Parquet or Arrow file")
    with _refused(path):
        return _Parquet(path) if path.suffix.lower() == ".parquet" else _Arrow(path)


def image_columns(schema: Any) -> list[str]:
    """The columns that may hold encoded images: bytes, or structs with a field of bytes called `bytes`."""
    return [field.name for field in schema if _is_bytes(field.type) or _bytes_field(field.type) is not None]


def label_columns(schema: Any) -> list[str]:
    """The columns that may hold labels: integers or texts."""

    def is_label(kind: Any) -> bool:
        kind = kind.value_type if kinds.is_dictionary(kind) else kind
        return bool(kinds.is_integer(kind) or kinds.is_string(kind) or kinds.is_large_string(kind))

    return [field.name for field in schema if is_label(field.type)]


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Turns the many errors that pyarrow has for damage into ValueError with the file's name."""
    try:
        yield
    except (pyarrow.ArrowException, OSError, MemoryError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as a {path.suffix[1:]} file, it is damaged: {why}") from error


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = parquet.ParquetFile(path, memory_map=False)
        self.schema = self._file.schema_arrow
        foot = self._file.metadata
        self.group_rows: Sequence[int] = [foot.row_group(group).num_rows for group in range(foot.num_row_groups)]

    def labels(self, column: str) -> Any:
        with _refused(self._path):
            return self._file.read([column], use_threads=False).column(0)

    def images(self, group: int, column: str) -> Any:
        leaf = self._leaf(column)
        with _refused(self._path):
            return _bytes_of(self._file.read_row_group(group, [leaf], use_threads=False).column(0).combine_chunks())

    def image_bytes(self, group: int, column: str) -> int:
        # Of all columns, mostly the images: a damaged description of one column ends the process when asked for.
        return int(self._file.metadata.row_group(group).total_byte_size)

    def _leaf(self, column: str) -> str:
        return column if _is_bytes(self.schema.field(column).type) else f"{column}.bytes"


class _Arrow:
    """Mapped into memory: what is read costs page cache, unless its writer compressed it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self._is_file = file.read(len(ARROW_FILE_MAGIC)) == ARROW_FILE_MAGIC
            file.seek(max(path.stat().st_size - len(END_OF_STREAM), 0))
            # pyarrow takes a stream that was cut between two batches for a whole one.
            if not self._is_file and file.read() != END_OF_STREAM:
                raise ValueError(f"{path}: the stream of Arrow batches has no end: it was cut short, copy it again")
        self._mapped = pyarrow.memory_map(str(path))
        self.schema = self._reader(None).schema
        if not self.schema.names:
            raise ValueError(f"{path} has no column; expected one of images and one of labels")
        self._batches: dict[str, list[Any]] = {}
        self.group_rows: Sequence[int] = [batch.num_rows for batch in self._columns(self.schema.names[0])]

    def labels(self, column: str) -> Any:
        with _refused(self._path):
            batches = [batch.column(0) for batch in self._columns(column)]
            labels = pyarrow.chunked_array(batches, self.schema.field(column).type)
            labels.validate(full=True)
            return labels

    def images(self, group: int, column: str) -> Any:
        with _refused(self._path):
            if self._is_file:
                return _bytes_of(self._reader(column).get_batch(group).column(0))
            if column not in self._batches:
                self._batches[column] = self._columns(column)
            if group >= len(self._batches[column]):  # damage may end the stream for one column and not for another
                raise ValueError(f"{self._path} is damaged: {column} ends before batch {group}")
            return _bytes_of(self._batches[column][group].column(0))

    def image_bytes(self, group: int, column: str) -> int:
        return 0

    def _columns(self, column: str) -> list[Any]:
        reader = self._reader(column)
        return [reader.get_batch(at) for at in range(reader.num_record_batches)] if self._is_file else list(reader)

    def _reader(self, column: str | None) -> Any:
        included = None if column is None else [self.schema.get_field_index(column)]
        options = ipc.IpcReadOptions(included_fields=included, use_threads=False)
        self._mapped.seek(0)
        return (ipc.open_file if self._is_file else ipc.open_stream)(self._mapped, options=options)


def _is_bytes(kind: Any) -> bool:
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind))


def _bytes_field(kind: Any) -> Any:
    at = kind.get_field_index("bytes") if kinds.is_struct(kind) else -1
    return kind.field(at) if at >= 0 and _is_bytes(kind.field(at).type) else None


def _bytes_of(column: Any) -> Any:
    column.validate(full=True)  # Arrow believes the offsets in a damaged file, and the process would end there
    return column.field("bytes") if _bytes_field(column.type) is not None else column
