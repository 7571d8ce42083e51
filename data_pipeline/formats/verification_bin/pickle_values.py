"""What a pickle of bytes can hold. The bytes themselves stay in the file: a `Content` says where they lie."""

import re
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TypeAlias

PYTHON_2_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.|$)", re.DOTALL)
PYTHON_2_ESCAPES = {b"\\": b"\\", b"'": b"'", b'"': b'"', b"n": b"\n", b"r": b"\r", b"t": b"\t"}
ONE_BYTE_KINDS = frozenset({"u1", "b1"})  # of NumPy: unsigned bytes and booleans


class Coding(IntEnum):
    """How bytes are written in the file."""

    PLAIN = 0
    QUOTED = 1  # as Python 2 printed a string: its protocol 0
    UTF8 = 2  # text of characters 0 to 255, one a byte: Python 3 in protocols 1 and 2
    ESCAPED = 3  # the same text with some characters escaped: Python 3 in protocol 0


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that lie in the file, `size` of them as they are written there."""

    start: int
    size: int
    coding: Coding


@dataclass(frozen=True, slots=True)
class Text:
    """Text that lies in the file, UTF8 or ESCAPED."""

    start: int
    size: int
    coding: Coding


@dataclass(frozen=True, slots=True)
class Kind:
    """A NumPy dtype by its name, without byte order."""

    name: str


@dataclass(slots=True)
class Array:
    """A NumPy array of numbers of one byte; a pickle makes it empty and fills it later."""

    kind: Kind | None = None
    data: Content | None = None


class Named(Enum):
    """The functions and types by which bytes and arrays are made; understood, never called."""

    ENCODE = "_codecs.encode"
    BYTES = "bytes"
    RECONSTRUCT = "_reconstruct"
    NDARRAY = "ndarray"
    DTYPE = "dtype"
    SCALAR = "scalar"
    FROMBUFFER = "_frombuffer"


NAMES = {
    "_codecs.encode": Named.ENCODE,
    "__builtin__.bytes": Named.BYTES,
    "builtins.bytes": Named.BYTES,
    "numpy.ndarray": Named.NDARRAY,
    "numpy.dtype": Named.DTYPE,
    **{f"numpy.{core}.multiarray._reconstruct": Named.RECONSTRUCT for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": Named.SCALAR for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": Named.FROMBUFFER for core in ("core", "_core")},
}

Value: TypeAlias = "bool | int | Content | Text | Kind | Array | Named | list[Value] | tuple[Value, ...] | None"


def kind_of(value: Value) -> str:
    """What a message calls a value: its type, as its content may be long."""
    return value.value if isinstance(value, Named) else type(value).__name__


def decoded(raw: bytes, coding: Coding) -> bytes:
    """The bytes meant by `raw`, which lie in the file; ValueError if no bytes are written so."""
    if coding == Coding.QUOTED:
        if len(raw) < 2 or raw[:1] != raw[-1:] or raw[:1] not in (b"'", b'"'):
            raise ValueError("a string without its quotes")
        return PYTHON_2_ESCAPE.sub(_unescaped, raw[1:-1])
    if coding == Coding.UTF8:
        return raw.decode().encode("latin-1")
    return raw.decode("raw-unicode-escape").encode("latin-1") if coding == Coding.ESCAPED else raw


def _unescaped(escape: re.Match[bytes]) -> bytes:
    sign = escape[1]
    if len(sign) == 3:
        return bytes.fromhex(sign[1:].decode())
    if sign not in PYTHON_2_ESCAPES:
        raise ValueError(f"a string with the escape {escape[0]!r}")
    return PYTHON_2_ESCAPES[sign]
