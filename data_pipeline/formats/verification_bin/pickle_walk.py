"""What a pickle holds, found without running it: a walk over its opcodes that calls nothing and imports nothing.

To unpickle a file is to run it: an opcode may name any function there is. Here only those count that make lists,
tuples, bytes, text, integers, booleans and None, and the few names by which old pickles and NumPy's write bytes.
Anything else is refused by its name and place. What is held in memory is bounded by `MOST_OPCODES`.
"""

from collections.abc import Callable
from math import prod
from typing import TypeAlias

from data_pipeline.files.byte_file import ByteFile, Window
from data_pipeline.formats.verification_bin.pickle_opcodes import Opcode, opcode_fault, opcodes
from data_pipeline.formats.verification_bin.pickle_values import (
    NAMES,
    ONE_BYTE_KINDS,
    Array,
    Coding,
    Content,
    Kind,
    Named,
    Text,
    Value,
    decoded,
    kind_of,
)

MOST_OPCODES = 1 << 23  # 4 million images as bytes, half a million as arrays; a GB or two of Python objects at worst
MOST_WORD_BYTES = 128  # of a number or a name
PLAIN_BYTES = ("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8")
SIGNED = frozenset({"BININT", "LONG1"})


def pickled_value(file: ByteFile) -> Value:
    """The value that the whole of `file` is a pickle of, protocols 0 to 5.

    ValueError naming byte and opcode for what is damaged, goes on after its end, or is more than data.
    """
    walk = _Walk(Window(file))
    for count, opcode in enumerate(opcodes(walk.window)):
        walk.opcode = opcode
        act = _ACTIONS.get(opcode.name)
        if act is None:
            raise walk.fault("no part of a pickle of bytes and numbers")
        if count == MOST_OPCODES:
            raise walk.fault(f"more than {MOST_OPCODES:,} opcodes")
        act(walk)
    return walk.pop()


class _Walk:
    """The machine that a pickle is a program of, with values that say what they would be."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.opcode = Opcode("", 0, 0, 0)
        self.stack: list[Value] = []
        self._below: list[list[Value]] = []  # the stacks under each mark
        self._memo: dict[int, Value] = {}

    def fault(self, what: str) -> ValueError:
        return opcode_fault(self.window.file, self.opcode.at, self.opcode.name, what)

    def push(self, value: Value) -> None:
        self.stack.append(value)

    def pop(self) -> Value:
        if not self.stack:
            raise self.fault("there is no value to take")
        return self.stack.pop()

    def stop(self) -> None:
        left, following = len(self.stack) - 1 + len(self._below), self.window.file.size_bytes - self.opcode.at - 1
        if left > 0:
            raise self.fault(f"{left} values are left over")
        if following:
            raise self.fault(f"the pickle ends here, and {following} bytes follow")

    def mark(self) -> None:
        self._below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Value]:
        if not self._below:
            raise self.fault("there is no mark to go back to")
        values, self.stack = self.stack, self._below.pop()
        return values

    def extend(self, values: list[Value]) -> None:
        target = self.pop()
        if not isinstance(target, list):
            raise self.fault(f"found {kind_of(target)} where it needs a list")
        target.extend(values)
        self.stack.append(target)

    def put(self) -> None:
        key = len(self._memo) if self.opcode.name == "MEMOIZE" else self._memo_key()
        self._memo[key] = value = self.pop()
        self.stack.append(value)

    def get(self) -> None:
        key = self._memo_key()
        if key not in self._memo:
            raise self.fault(f"nothing was kept as number {key}")
        self.stack.append(self._memo[key])

    def line_number(self) -> None:
        digits = self._argument()
        if self.opcode.name == "INT" and digits in (b"00", b"01"):
            self.stack.append(digits == b"01")  # how protocols 0 and 1 write booleans
            return
        try:
            self.stack.append(int(digits.removesuffix(b"L")))
        except ValueError:
            raise self.fault(f"{digits!r} is no number") from None

    def number(self) -> None:
        self.stack.append(int.from_bytes(self._argument(), "little", signed=self.opcode.name in SIGNED))

    def name(self) -> None:
        if self.opcode.name == "GLOBAL":
            name = self._argument().decode(errors="backslashreplace").replace("\n", ".")
        else:
            last, first = self._word(self.pop()), self._word(self.pop())
            name = f"{first}.{last}"
        if name not in NAMES:
            raise self.fault(f"it names {name!r}, which is not data")
        self.stack.append(NAMES[name])

    def reduce(self) -> None:
        """What would be a call: the value that it would make, if that is data."""
        arguments, named = self.pop(), self.pop()
        if not isinstance(arguments, tuple) or not isinstance(named, Named):
            raise self.fault(f"{kind_of(named)} of {kind_of(arguments)} is not data")
        made: Value
        match (named, *arguments):
            case (Named.ENCODE, Text(start, size, coding), latin1) if self._word(latin1) == "latin1":
                made = Content(start, size, coding)
            case (Named.BYTES,):
                made = Content(self.opcode.at, 0, Coding.PLAIN)
            case (Named.DTYPE, name, *_):
                made = Kind(self._word(name).lstrip("|"))
            case (Named.RECONSTRUCT, Named.NDARRAY, *_):
                made = Array()
            case (Named.FROMBUFFER, Content() as data, Kind() as kind, tuple() as shape, _):
                made = self._filled(Array(), kind, shape, data)
            case (Named.SCALAR, Kind(name), Content() as data) if name in ONE_BYTE_KINDS:
                made = int.from_bytes(self._short(data), "little")
            case _:
                raise self.fault(f"{named.value} of {', '.join(map(kind_of, arguments)) or 'nothing'} is not data")
        self.stack.append(made)

    def build(self) -> None:
        """Fill the value below the state that is on top."""
        state, target = self.pop(), self.pop()
        match target, state:
            case Array(data=None), (_, tuple() as shape, Kind() as kind, _, Content() as data):
                self.stack.append(self._filled(target, kind, shape, data))
            case Kind(), tuple():
                self.stack.append(target)  # byte order and the like, which numbers of one byte do not have
            case _:
                raise self.fault(f"{kind_of(target)} made of {kind_of(state)} is not data")

    def _filled(self, array: Array, kind: Kind, shape: tuple[Value, ...], data: Content) -> Array:
        if kind.name not in ONE_BYTE_KINDS:
            raise self.fault(f"an array of {kind.name!r}; expected one of bytes ('u1') or of booleans ('b1')")
        lengths = [length for length in shape if isinstance(length, int) and length >= 0]
        if len(lengths) < len(shape) or (data.coding == Coding.PLAIN and prod(lengths) != data.size):
            raise self.fault(f"an array of shape {lengths} with {data.size} bytes in it")
        array.kind, array.data = kind, data
        return array

    def _memo_key(self) -> int:
        digits = self._argument()
        if self.opcode.name not in ("PUT", "GET"):
            return int.from_bytes(digits, "little")
        if not digits.isdigit():
            raise self.fault(f"{digits!r} is no number")
        return int(digits)

    def _argument(self) -> bytes:
        return self._short(Content(self.opcode.start, self.opcode.size, Coding.PLAIN))

    def _word(self, value: Value) -> str:
        """A short text; Python 2 wrote those as bytes."""
        if not isinstance(value, Text | Content):
            raise self.fault(f"found {kind_of(value)} where it needs a word")
        return self._short(value).decode(errors="backslashreplace")

    def _short(self, value: Text | Content) -> bytes:
        """What is read at once: numbers and names, never images."""
        if value.size > MOST_WORD_BYTES:
            raise self.fault(f"a number or name of {value.size} bytes")
        try:
            return decoded(self.window.bytes_at(value.start, value.size), value.coding)
        except ValueError as error:
            raise self.fault(f"a number or name that cannot be read ({error})") from error


_Action: TypeAlias = Callable[[_Walk], None]


def _constant(value: Value) -> _Action:
    return lambda walk: walk.stack.append(value)


def _lying(kind: type[Content] | type[Text], coding: Coding) -> _Action:
    return lambda walk: walk.stack.append(kind(walk.opcode.start, walk.opcode.size, coding))


def _tuple_of(count: int) -> _Action:
    def act(walk: _Walk) -> None:
        values = [walk.pop() for _ in range(count)]
        walk.stack.append(tuple(reversed(values)))

    return act


_ACTIONS: dict[str, _Action] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda walk: None),
    "STOP": _Walk.stop,
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),
    "NEWFALSE": _constant(False),
    **dict.fromkeys(("INT", "LONG"), _Walk.line_number),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _Walk.number),
    **dict.fromkeys(PLAIN_BYTES, _lying(Content, Coding.PLAIN)),
    "STRING": _lying(Content, Coding.QUOTED),
    "UNICODE": _lying(Text, Coding.ESCAPED),
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _lying(Text, Coding.UTF8)),
    "MARK": _Walk.mark,
    "EMPTY_TUPLE": _constant(()),
    "TUPLE": lambda walk: walk.push(tuple(walk.since_mark())),
    **{f"TUPLE{count}": _tuple_of(count) for count in (1, 2, 3)},
    "EMPTY_LIST": lambda walk: walk.stack.append([]),
    "LIST": lambda walk: walk.push(walk.since_mark()),
    "APPEND": lambda walk: walk.extend([walk.pop()]),
    "APPENDS": lambda walk: walk.extend(walk.since_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Walk.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Walk.get),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), _Walk.name),
    "REDUCE": _Walk.reduce,
    "BUILD": _Walk.build,
}
