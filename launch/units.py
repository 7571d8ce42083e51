"""Sizes and durations as people write them: ``80GiB`` in, ``1.25 GiB`` and ``12.3 ms`` out."""

from __future__ import annotations

import re

from pydantic import ByteSize, TypeAdapter, ValidationError


def parsed_bytes(text: str) -> int:
    """The bytes that ``80GiB``, ``80 GB``, ``0.5TiB`` or ``1048576`` mean, capitals or not.

    ValueError for anything else, and for less than one byte.
    """
    is_size = re.fullmatch(r"\s*\d*\.?\d+\s*[a-zA-Z]*\s*", text)  # ByteSize reads "1,5GiB" as one byte
    try:
        number = TypeAdapter(ByteSize).validate_python(text.strip() if is_size else "")
    except ValidationError as error:
        raise ValueError(f"{text!r} is no size: expected a number and a unit such as GB or GiB: 80GiB") from error
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
