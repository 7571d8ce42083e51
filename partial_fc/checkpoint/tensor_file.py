"""Files written piece by piece, their CRC-32 found on the way: a save takes no memory but for a piece.

safetensors' own ``save_file`` first makes a copy of all tensors as bytes, and their CRC-32 is then another read of the
file. The library reads what is written here: 8 bytes with the header's length, a header in JSON, and the tensors' bytes
one after the other (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from partial_fc.checkpoint.layout import FileFacts

PIECE_BYTES = 16 << 20  # what a save holds in memory at a time where it makes no copy of the state
_HEADER_ALIGNMENT = 8
_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}


class SummedFile:
    """A new file for a ``with`` block: counts what is written to it, and is on the disk when the block ends."""

    def __init__(self, path: Path) -> None:
        self.path, self._size_bytes, self._crc32 = path, 0, 0

    def __enter__(self) -> SummedFile:
        self._file = self.path.open("wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if kind is None:
                self.flush()
                os.fsync(self._file.fileno())

    def write(self, data: bytes | memoryview) -> int:
        """Append ``data``."""
        self._crc32 = zlib.crc32(data, self._crc32)
        self._size_bytes += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        self._file.flush()

    def facts(self) -> FileFacts:
        """Those of what has been written."""
        return FileFacts(self._size_bytes, self._crc32)


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor]) -> FileFacts:
    """Write a safetensors file of tensors on any device, and sync it. KeyError for a dtype that training has not."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # so that each is aligned
    header, end = {}, 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    with SummedFile(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in ordered:
            for piece in pieces(tensor):
                file.write(_bytes(piece))
    return file.facts()


def pieces(tensor: Tensor, most_bytes: int = PIECE_BYTES) -> Iterator[Tensor]:
    """``tensor`` in the order of its rows, as views of at most ``most_bytes`` each; an element is never split."""
    if tensor.nbytes <= most_bytes or not tensor.dim():
        yield tensor
    elif len(tensor) == 1:
        yield from pieces(tensor[0], most_bytes)
    else:
        for part in torch.split(tensor, max(most_bytes * len(tensor) // tensor.nbytes, 1)):
            yield from pieces(part, most_bytes)


def _bytes(piece: Tensor) -> memoryview:
    """The bytes of a tensor in the order of its rows: its own memory, or where it does not lie so, a copy."""
    return piece.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
