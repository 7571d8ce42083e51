"""The opcodes of a pickle and where the argument of each lies; nothing is read of an argument but its length."""

import pickletools
from collections.abc import Iterator
from typing import NamedTuple

from data_pipeline.files.byte_file import ByteFile, Window

LINE_STEP_BYTES = 1 << 12
LENGTHS = {opcode.code.encode("latin-1"): opcode.arg.n if opcode.arg else 0 for opcode in pickletools.opcodes}
NAMES = {opcode.code.encode("latin-1"): opcode.name for opcode in pickletools.opcodes}
PREFIX_BYTES = {  # how many bytes say how long an argument is
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
TWO_LINES = frozenset({"GLOBAL", "INST"})


class Opcode(NamedTuple):
    """An opcode, where it lies, and where its argument does."""

    name: str
    at: int
    start: int
    size: int


def opcodes(window: Window) -> Iterator[Opcode]:
    """The opcodes from the start of a file to the first STOP; ValueError naming the byte where there is none."""
    at, name = 0, ""
    while name != "STOP":
        code = window.bytes_at(at, 1)
        if code not in NAMES:
            raise opcode_fault(window.file, at, repr(code), "there is no such opcode")
        name = NAMES[code]
        start, size, after = _argument(window, at, name, LENGTHS[code])
        yield Opcode(name, at, start, size)
        at = after


def opcode_fault(file: ByteFile, at: int, name: str, what: str) -> ValueError:
    """An error about the opcode at byte `at`."""
    return ValueError(
        f"{file.path}, byte {at}, opcode {name}: {what}. Nothing in the file was run; copy it again, or ask who "
        "made it for a pickle of (list of images as bytes, list of booleans)"
    )


def _argument(window: Window, at: int, name: str, length: int) -> tuple[int, int, int]:
    """Start and size of an argument, and where the next opcode is."""
    start = at + 1
    if length == pickletools.UP_TO_NEWLINE:
        end = _line_end(window, at, name, start)
        if name in TWO_LINES:
            end = _line_end(window, at, name, end + 1)
        return start, end - start, end + 1
    if length < 0:
        prefix = PREFIX_BYTES[length]
        length = int.from_bytes(window.bytes_at(start, prefix), "little")
        start += prefix
    if start + length > window.file.size_bytes:
        what = f"its {length} bytes reach past the end at byte {window.file.size_bytes}: the file was cut short"
        raise opcode_fault(window.file, at, name, what)
    return start, length, start + length


def _line_end(window: Window, at: int, name: str, start: int) -> int:
    end = window.file.size_bytes
    for step in range(start, end, LINE_STEP_BYTES):
        found = window.bytes_at(step, min(LINE_STEP_BYTES, end - step)).find(b"\n")
        if found >= 0:
            return step + found
    raise opcode_fault(window.file, at, name, "its line has no end: the file was cut short")
