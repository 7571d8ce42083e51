"""What the opening of a large set found, kept beside it in a `.npz` for the next time.

A seal says what the index was made of; one with another seal, cut short, or of a shape that cannot be, is no index.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.files.whole_file import WholeFile


def kept_index(path: Path, seal: NDArray[Any]) -> dict[str, NDArray[Any]] | None:
    """The arrays kept in `path`, or None where there are none that are whole and have this seal."""
    try:
        with zipfile.ZipFile(path) as members:  # that of another's set may be made to fill the memory
            if any(each.compress_type != zipfile.ZIP_STORED for each in members.infolist()):
                return None
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if not np.array_equal(arrays["seal"], seal):
                return None
            return {name: arrays[name] for name in arrays if name != "seal"}
    except Exception:  # zipfile and NumPy have a dozen kinds for a damaged file; any of them means: look again
        return None


def keep_index(path: Path, seal: NDArray[Any], arrays: Mapping[str, Any]) -> None:
    """Keeps the arrays in `path`, which is whole or not there, if its folder can be written to."""
    # A folder that cannot be written to, a full disk: the next opening looks again.
    with suppress(OSError), WholeFile(path) as file:
        np.savez(file, seal=seal, **arrays)
