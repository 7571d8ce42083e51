"""What the opening of a large set found, kept beside it in a `.npz` for the next time.

A seal says what the index was made of; one with another seal, cut short, or of a shape that cannot be, is no index.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def kept_index(path: Path, seal: NDArray[Any]) -> dict[str, NDArray[Any]] | None:
    """The arrays kept in `path`, or None where there are none that are whole and have this seal."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if not np.array_equal(arrays["seal"], seal):
                return None
            return {name: arrays[name] for name in arrays if name != "seal"}
    except Exception:  # zipfile and NumPy have a dozen kinds for a damaged file; any of them means: look again
        return None


def keep_index(path: Path, seal: NDArray[Any], arrays: Mapping[str, Any]) -> None:
    """Keeps the arrays in `path`, which is whole or not there, if its folder can be written to."""
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with partial.open("xb") as file:
            np.savez(file, seal=seal, **arrays)
        partial.replace(path)
    except OSError:  # a folder that cannot be written to, a full disk: the next opening looks again
        try:
            partial.unlink(missing_ok=True)
        except OSError:
            return
