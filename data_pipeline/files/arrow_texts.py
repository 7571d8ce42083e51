"""Columns of texts as Arrow holds them, which packed texts and the labels of named classes are made of."""

from __future__ import annotations

import numpy as np
import pyarrow
from numpy.typing import NDArray

from data_pipeline.files.packed_texts import PackedTexts


def packed(texts: pyarrow.ChunkedArray) -> PackedTexts:
    """The texts of a column of type `large_string`, none of them null, in one piece."""
    column = texts.combine_chunks() if texts.num_chunks != 1 else texts.chunk(0)
    _, edges, joined = column.buffers()
    kept = np.frombuffer(edges, np.int64)[column.offset : column.offset + len(column) + 1]
    return PackedTexts(np.frombuffer(joined or b"", np.uint8), kept)


def named_classes(texts: pyarrow.ChunkedArray) -> tuple[NDArray[np.int64], PackedTexts]:
    """The place of each text among the distinct ones, which come in the order of their bytes; and the distinct ones."""
    encoded = texts.dictionary_encode().combine_chunks()
    names: list[bytes] = encoded.dictionary.cast(pyarrow.large_binary()).to_pylist()
    order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
    label_of = np.empty_like(order)
    label_of[order] = np.arange(order.size)
    return label_of[encoded.indices.to_numpy()], PackedTexts.of(names[at] for at in order)
