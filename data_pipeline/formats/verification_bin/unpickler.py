"""The value of a pickle of images and booleans, made without importing or calling anything that the pickle names.

To unpickle a file is to run it: an opcode may call any function there is. The opcodes allowed here make lists, tuples,
bytes, texts, integers, booleans and None; the names allowed are those by which NumPy and old protocols write bytes,
and each stands for a function of this module. The interpreter is the standard library's in Python: the one in C takes
memory for any memo number that a file claims.
"""

import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

MOST_FILE_BYTES = 1 << 32  # the images are held in memory; the largest set in common use has 100 MB
MOST_READS = 1 << 24  # about two an opcode: 4 million images, or 2 GB of empty lists at worst
MOST_AXES = 64  # of an array
OPCODES = (
    "PROTO STOP MARK GLOBAL STACK_GLOBAL BUILD PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET "
    "NONE NEWTRUE NEWFALSE INT LONG LONG1 BININT BININT1 BININT2 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 "
    "EMPTY_LIST LIST APPEND APPENDS STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8"
)
CODES: list[int] = [getattr(pickle, name)[0] for name in OPCODES.split()]


class ByteArray:
    """The content of a NumPy array of unsigned bytes (`u1`) or booleans (`b1`): made empty, then filled."""

    kind, content = "u1", b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, kind, _is_fortran, content = state
        if not (isinstance(kind, _Kind) and isinstance(shape, tuple) and isinstance(content, bytes)):
            raise pickle.UnpicklingError("an array that is not made of a shape, a dtype and bytes")
        if len(shape) > MOST_AXES or math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f"an array of shape {shape[:4]} with {len(content)} bytes in it")
        self.kind, self.content = kind.name, content


def unpickled(path: Path) -> object:
    """The value that the whole of a file is a pickle of, protocols 0 to 5; its arrays are :class:`ByteArray`.

    ValueError naming the byte for what is damaged, too large, goes on after its end, or is more than data.
    FileNotFoundError for what is no regular file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, or is no regular file")
    size_bytes = path.stat().st_size
    if size_bytes > MOST_FILE_BYTES:
        raise ValueError(f"{path} has {size_bytes:,} bytes, more than {MOST_FILE_BYTES:,}: make it several sets")
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("error")  # about an escape that Python 2 never wrote
        reader = _BoundedReader(file, size_bytes)
        try:
            return _DataUnpickler(reader).whole_value()
        except Exception as error:  # of damage the interpreter raises whatever comes up: IndexError, TypeError, ...
            raise ValueError(
                f"{path}, byte {reader.at}: {str(error) or 'damaged'} ({type(error).__name__}). Nothing in the file "
                "was run; copy it again, or ask who made it for a pickle of (list of images as bytes, list of booleans)"
            ) from error


class _BoundedReader:
    """The reads of a file: never past its end, whatever length it claims, and at most `MOST_READS`."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file, self.size_bytes = file, size_bytes
        self.at = self._reads = 0

    def read(self, size: int) -> bytes:
        self._reads += 1
        if self._reads > MOST_READS:
            raise pickle.UnpicklingError(f"more than {MOST_READS:,} opcodes and arguments")
        if size > self.size_bytes - self.at:
            raise EOFError(f"{size} bytes reach past its end at byte {self.size_bytes}: the file was cut short")
        self.at += size
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline()
        self.at += len(line)
        if not line.endswith(b"\n"):
            raise EOFError("a line has no end: the file was cut short")
        return line


class _Opcodes(dict[int, Callable[[Any], None]]):
    def __missing__(self, code: int) -> Callable[[Any], None]:
        raise pickle.UnpicklingError(f"opcode {bytes([code])!r} is no part of a pickle of bytes and numbers")


class _DataUnpickler(pickle._Unpickler):
    stack: list[Any]
    metastack: list[list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, reader: _BoundedReader) -> None:
        super().__init__(reader, encoding="bytes")
        self._reader, self._encoded_bytes = reader, 0

    def whole_value(self) -> object:
        value: object = self.load()
        following = self._reader.size_bytes - self._reader.at
        if self.stack or self.metastack:
            raise pickle.UnpicklingError(f"{len(self.stack) + len(self.metastack)} values are left over")
        if following:
            raise pickle.UnpicklingError(f"the pickle ends here, and {following} bytes follow")
        return value

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        named = f"{module}.{name}"
        if named == "_codecs.encode":
            return self._latin_1
        if named not in MAKERS:
            raise pickle.UnpicklingError(f"it names {named[:80]!r}, which is not data")
        return MAKERS[named]

    def _latin_1(self, text: str, encoding: str) -> bytes:
        """How Python 3 writes bytes in protocols 0 to 2. All of them together are no longer than their texts."""
        if encoding != "latin1":
            raise pickle.UnpicklingError("a text that is not encoded as latin1")
        self._encoded_bytes += len(text)
        if self._encoded_bytes > self._reader.size_bytes:
            raise pickle.UnpicklingError("it encodes one text again and again")
        return text.encode("latin-1")

    def _call(self) -> None:
        """A call of what `find_class` gave, which is all that can be called here."""
        arguments = self.stack.pop()
        if not isinstance(arguments, tuple):  # bytes, handed over one by one, would take eight times their memory
            raise pickle.UnpicklingError(f"arguments that are {type(arguments).__name__}")
        self.stack[-1] = self.stack[-1](*arguments)

    dispatch = _Opcodes({code: pickle._Unpickler.dispatch[code] for code in CODES})
    dispatch[pickle.FRAME[0]] = lambda self: self.read(8)  # only a hint how much to read at once
    dispatch[pickle.BYTEARRAY8[0]] = dispatch[pickle.BINBYTES8[0]]  # which reads before it takes memory
    dispatch[pickle.REDUCE[0]] = _call


class _Kind:
    """A NumPy dtype of one byte, which has no byte order."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        self.name = (name.decode() if isinstance(name, bytes) else name).lstrip("|")
        if self.name not in ("u1", "b1"):
            raise pickle.UnpicklingError(f"an array of {self.name[:20]!r}; expected one of bytes (u1) or booleans (b1)")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like."""


def _array(content: bytes, kind: _Kind, shape: tuple[int, ...], *_: object) -> ByteArray:
    array = ByteArray()
    array.__setstate__((1, shape, kind, False, content))
    return array


def _number(kind: _Kind, content: bytes) -> int:
    if not isinstance(kind, _Kind):
        raise pickle.UnpicklingError("a number without its dtype")
    (number,) = content
    return number


MAKERS: dict[str, Callable[..., object]] = {
    "__builtin__.bytes": lambda: b"",
    "builtins.bytes": lambda: b"",
    "numpy.ndarray": ByteArray,
    "numpy.dtype": _Kind,
    **{f"numpy.{core}.multiarray._reconstruct": lambda *_: ByteArray() for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _number for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _array for core in ("core", "_core")},
}
