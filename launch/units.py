"""Sizes and durations as people write them: ``80GiB`` in, ``1.25 GiB`` and ``12.3 ms`` out."""

from __future__ import annotations

import re

_BYTES = {
    "": 1,
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
}
_BY_CAPITALS = {unit.upper(): size for unit, size in _BYTES.items()}


def parsed_bytes(text: str) -> int:
    """The bytes that ``80GiB``, ``80 GB``, ``0.5TiB`` or ``1048576`` mean, capitals or not.

    ValueError for anything else, and for less than one byte.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", text)
    size = _BY_CAPITALS.get(found[2].upper()) if found else None
    if found is None or size is None:
        raise ValueError(f"{text!r} is no size: expected a number and one of {', '.join(filter(None, _BYTES))}: 80GiB")
    number = int(float(found[1]) * size)
    if number < 1:
        raise ValueError(f"{text!r}: expected at least one byte")
    return number


def bytes_text(number: float) -> str:
    """``number`` in the largest binary unit of which it has at least one."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if number >= 1024**power:
            return f"{number / 1024**power:,.2f} {unit}"
    return f"{number:,.0f} B"


def seconds_text(seconds: float) -> str:
    """Hours, minutes, seconds, milliseconds or microseconds, with three digits."""
    for size, unit in ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds * 1e6:.3g} µs"
