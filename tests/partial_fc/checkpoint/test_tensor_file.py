"""Files of tensors written piece by piece: the library reads what was given, and nothing is held twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from partial_fc.checkpoint.layout import FileFacts
from partial_fc.checkpoint.tensor_file import PIECE_BYTES, pieces, write_tensor_file
from partial_fc.checkpoint.writing import write_backbone, write_tensors

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


def test_the_library_reads_every_dtype_and_shape_bit_for_bit(tmp_path: Path) -> None:
    tensors = {f"of {dtype}": torch.randn(5, 3).mul(9).to(dtype) for dtype in DTYPES}
    tensors |= {f"scalar {dtype}": torch.tensor(1).to(dtype) for dtype in DTYPES}
    tensors |= {"none": torch.empty(0, 7), "nan": torch.tensor([torch.nan, -0.0]), 'quoted "é"': torch.ones(2)}
    tensors["channels last"] = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    tensors["transposed"] = torch.randn(6, 5).T
    tensors["every other"] = torch.randn(9, 4)[::2, 1:]
    facts = write_tensor_file(tmp_path / "file", tensors)
    assert facts == FileFacts.of(tmp_path / "file")
    found = load_file(tmp_path / "file")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(_bits(found[name]), _bits(tensor)), name


def test_tensors_larger_than_a_piece_are_whole(tmp_path: Path) -> None:
    rows = PIECE_BYTES // (4 * 512)
    tensors = {"rows": torch.randn(rows + 3, 512), "one row": torch.randn(1, PIECE_BYTES // 4 + 5)}
    tensors["transposed"] = torch.randn(512, rows + 5).T
    facts = write_tensor_file(tmp_path / "file", tensors)
    assert facts == FileFacts.of(tmp_path / "file")
    found = load_file(tmp_path / "file")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("shape", [(), (0,), (7,), (5, 3), (1, 40), (2, 1, 3, 5), (3, 0, 2)])
@pytest.mark.parametrize("most_bytes", [1, 4, 11, 24, 1000])
def test_pieces_are_bounded_views_in_the_order_of_the_rows(shape: tuple[int, ...], most_bytes: int) -> None:
    tensor = torch.randn(shape)
    found = list(pieces(tensor, most_bytes))
    assert torch.equal(torch.cat([piece.reshape(-1) for piece in found]), tensor.reshape(-1))
    assert all(piece.nbytes <= max(most_bytes, 4) for piece in found)
    storage = tensor.untyped_storage().data_ptr()
    assert all(piece.untyped_storage().data_ptr() == storage for piece in found)


@pytest.mark.parametrize("write", [write_tensors, write_backbone])
@pytest.mark.parametrize("rows", [10, 10_000])
def test_a_full_disk_is_named_with_the_file(tmp_path: Path, write: object, rows: int) -> None:
    assert callable(write)
    (tmp_path / "file").symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"no space for {tmp_path}/file: it needs {rows * 400:,} bytes"):
        write(tmp_path / "file", {"weight": torch.ones(rows, 100)})


def test_the_backbones_file_has_the_facts_of_what_lies_there(tmp_path: Path) -> None:
    state = {"weight": torch.randn(300, 50), "count": torch.tensor(3)}
    name, facts = write_backbone(tmp_path / "backbone.pt", state)
    assert (name, facts) == ("backbone.pt", FileFacts.of(tmp_path / "backbone.pt"))
    found = torch.load(tmp_path / "backbone.pt", weights_only=True)
    assert all(torch.equal(found[key], value) for key, value in state.items())


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
