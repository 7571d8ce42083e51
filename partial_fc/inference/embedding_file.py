"""The embeddings of a set as a file: ``.parquet``, or ``.npy`` with its companions; written once, read by blocks.

::

    faces.parquet          columns name, label, embedding (a fixed-size list of float32); a row is an image
    faces.npy              (N, D) float32, of length 1; beside it:
    faces.names.txt        a line an image: where it lies
    faces.labels.npy       (N,) int64
    faces.origin.json      which network and which set they are of; a Parquet file keeps it as metadata
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from partial_fc.inference.exporting import whole
from partial_fc.inference.model import Numbers

SUFFIXES = (".parquet", ".npy")
BLOCK_BYTES = 64 << 20
_KEY = b"partial_fc"  # of a Parquet file's metadata
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}  # no name may break a line


@dataclass(frozen=True)
class Origin:
    """What embeddings are of, so that those of two networks or two sets are never mixed.

    ``network`` is the digest of its weights, ``contents`` the fingerprint of the set at ``images``; the samples
    ``left_out`` of that set have no row.
    """

    network: str
    input_size: int
    flip: bool
    images: str
    num_images: int
    contents: str
    left_out: Sequence[int] = ()

    def samples(self) -> NDArray[np.int64]:
        """``(N,)``: the number that the image of each row has in its set."""
        return np.delete(np.arange(self.num_images), np.asarray(self.left_out, np.int64))


class Rows(NamedTuple):
    """Some rows in a row: embeddings ``(n, D)``, labels ``(n,)``, names."""

    unit_nD: Numbers
    labels_n: NDArray[np.int64]
    names: Sequence[str]


def companions(path: Path) -> dict[str, Path]:
    """What lies beside an ``.npy`` of embeddings, by what it holds; nothing beside Parquet."""
    if path.suffix == ".parquet":
        return {}
    ends = {"names": ".names.txt", "labels": ".labels.npy", "origin": ".origin.json"}
    return {what: path.with_suffix(end) for what, end in ends.items()}


def write_embeddings(path: Path, shape: tuple[int, int], parts: Iterable[Rows], origin: Origin) -> None:
    """Write ``shape`` rows, given part by part, to ``path``, which appears when it is whole. Holds a part."""
    writer = {".parquet": _write_parquet, ".npy": _write_npy}.get(path.suffix)
    if writer is None:
        raise ValueError(f"{path}: embeddings are written to a file that ends in {' or '.join(SUFFIXES)}")
    writer(path, shape, parts, origin)


def _write_parquet(path: Path, shape: tuple[int, int], parts: Iterable[Rows], origin: Origin) -> None:
    embedding = pa.list_(pa.field("item", pa.float32(), nullable=False), shape[1])
    fields = [pa.field("name", pa.string()), pa.field("label", pa.int64()), pa.field("embedding", embedding)]
    schema = pa.schema(fields, metadata={_KEY: json.dumps(asdict(origin))})
    with whole(path) as file, pq.ParquetWriter(file, schema, use_dictionary=False) as writer:
        for rows in parts:
            flat = pa.array(np.ascontiguousarray(rows.unit_nD, np.float32).reshape(-1))
            columns = [pa.array(_lines(rows.names), pa.string()), pa.array(rows.labels_n, pa.int64())]
            table = pa.table([*columns, pa.FixedSizeListArray.from_arrays(flat, type=embedding)], schema=schema)
            writer.write_table(table, row_group_size=max(len(rows.names), 1))


def _write_npy(path: Path, shape: tuple[int, int], parts: Iterable[Rows], origin: Origin) -> None:
    beside, labels = companions(path), [np.empty(0, np.int64)]
    with ExitStack() as stack:  # the last that is opened gets its name first: the embeddings come last of all
        embeddings = stack.enter_context(stack.enter_context(whole(path)).open("wb"))
        written = {what: stack.enter_context(whole(file)) for what, file in beside.items()}
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(embeddings, header)
        with written["names"].open("w", encoding="utf-8") as names:
            for rows in parts:
                embeddings.write(np.ascontiguousarray(rows.unit_nD, "<f4").data)
                labels.append(rows.labels_n)
                names.writelines(f"{name}\n" for name in _lines(rows.names))
        with written["labels"].open("wb") as file:
            np.save(file, np.concatenate(labels))
        written["origin"].write_text(json.dumps(asdict(origin)) + "\n", encoding="utf-8")


def _lines(names: Sequence[str]) -> list[str]:
    """Names that any reader of UTF-8 takes, each in one line."""
    return [name.translate(_CONTROLS).encode("utf-8", "backslashreplace").decode() for name in names]


class EmbeddingFile:
    """The embeddings that :func:`write_embeddings` wrote: labels in memory, rows read by blocks.

    ValueError for what is no such file. ``origin`` says what they are of.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.suffix not in SUFFIXES:
            raise ValueError(f"{path}: embeddings lie in a file that ends in {' or '.join(SUFFIXES)}")
        for file in (path, *companions(path).values()):
            if not file.is_file():
                raise ValueError(f"{file}: there is no such file; partial-fc embed writes it")
        try:
            self.origin = Origin(**json.loads(self._origin_text()))
            self.labels_N = self._labels()
            self._rows = None if path.suffix == ".parquet" else np.load(path, mmap_mode="r", allow_pickle=False)
            self.embedding_dim = self._embedding_dim()
        except (ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
            raise ValueError(f"{path} holds no embeddings that partial-fc embed wrote: {error}") from error

    def __len__(self) -> int:
        return len(self.labels_N)

    def blocks(self, rows: int | None = None) -> Iterator[tuple[int, Numbers]]:
        """The number of the first row of each block, and the block ``(b, D)``: at most ``rows``, or 64 MiB."""
        most = rows or max(BLOCK_BYTES // (4 * self.embedding_dim), 1)
        if self._rows is not None:
            for first in range(0, len(self), most):
                yield first, np.asarray(self._rows[first : first + most], np.float32)
            return
        first = 0
        for batch in self._parquet.iter_batches(most, columns=["embedding"]):
            flat = batch.column(0).flatten().to_numpy(zero_copy_only=False)
            yield first, flat.reshape(-1, self.embedding_dim)
            first += len(batch)

    def rows(self, wanted: NDArray[np.int64]) -> Numbers:
        """The embeddings ``(n, D)`` of the rows ``wanted``, in their order."""
        found = np.empty((len(wanted), self.embedding_dim), np.float32)
        for first, block in self.blocks():
            here = (wanted >= first) & (wanted < first + len(block))
            found[here] = block[wanted[here] - first]
        return found

    def names(self, rows: Iterable[int]) -> dict[int, str]:
        """Where the images of ``rows`` lie. Reads the names up to the last of them."""
        wanted = set(rows)
        numbered = islice(enumerate(self._names()), max(wanted, default=-1) + 1)
        return {row: name for row, name in numbered if row in wanted}

    def _names(self) -> Iterator[str]:
        if self._rows is None:
            for batch in self._parquet.iter_batches(columns=["name"]):
                yield from batch.column(0).to_pylist()
            return
        with companions(self.path)["names"].open(encoding="utf-8") as file:
            yield from (line.rstrip("\n") for line in file)

    @cached_property
    def _parquet(self) -> Any:
        return pq.ParquetFile(self.path)

    def _origin_text(self) -> str:
        if self.path.suffix == ".npy":
            return companions(self.path)["origin"].read_text(encoding="utf-8")
        return str((self._parquet.schema_arrow.metadata or {})[_KEY].decode())

    def _labels(self) -> NDArray[np.int64]:
        if self.path.suffix == ".parquet":
            return np.asarray(self._parquet.read(["label"]).column(0).to_numpy(), np.int64)
        return np.asarray(np.load(companions(self.path)["labels"], allow_pickle=False), np.int64)

    def _embedding_dim(self) -> int:
        if self._rows is None:
            return int(self._parquet.schema_arrow.field("embedding").type.list_size)
        if self._rows.shape[:1] != self.labels_N.shape or self._rows.dtype != np.float32:
            raise ValueError(f"{self._rows.dtype} {self._rows.shape} beside {len(self)} labels")
        return int(self._rows.shape[1])
