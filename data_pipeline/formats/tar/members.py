"""The members of a tar file, found by a walk over its headers.

A tar is a row of entries, each a header of 512 bytes, then content, then zeros to a multiple of 512. Fields used:

    0 name[100] | 124 size[12] | 148 sum of the header's bytes[8] | 156 kind[1] | 257 "ustar" | 345 prefix[155]

Numbers are octal digits; those that do not fit are stored in base 256. A name that does not fit comes in an entry
before the member, of kind L (GNU) or as `path` in one of kind x (pax). Two empty blocks are the end.
"""

import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from data_pipeline.files.byte_file import WINDOW_BYTES, ByteFile, Window

BLOCK_BYTES = 512
EMPTY_BLOCK = bytes(BLOCK_BYTES)
MOST_EXTRA_BYTES = 1 << 20  # of a long name or a pax entry: whatever claims more is damaged
REGULAR = frozenset({b"0", b"\0", b"7"})
WITHOUT_CONTENT = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})  # links, devices, folders
GNU_NAME, GNU_LINK, PAX, SOLARIS_PAX, PAX_FOR_ALL = b"L", b"K", b"x", b"X", b"g"
EXTRAS = frozenset({GNU_NAME, GNU_LINK, PAX, SOLARIS_PAX, PAX_FOR_ALL})
PAX_RECORD = re.compile(rb"(\d{1,7}) ([^=\n]+)=")
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Member(NamedTuple):
    """A regular file in a tar. Its entry may start before its header, with the long name that belongs to it."""

    name: bytes
    entry: int
    start: int  # of its content
    size: int


class _Said(NamedTuple):
    """What extra entries say about the member that follows them."""

    name: bytes = b""
    size: int | None = None


def members(window: Window, entry: int = 0) -> Iterator[Member]:
    """The regular files of a tar from the entry at byte `entry` on; links, folders and devices are passed over.

    ValueError with file and byte where the tar is damaged, compressed, cut short or goes on after its end.
    """
    at, said, size_bytes = entry, _Said(), window.file.size_bytes
    while (header := _header(window, at)) is not None:
        kind, start = header[156:157], at + BLOCK_BYTES
        size = said.size
        if size is None or kind in EXTRAS:
            size = _size(header, window.file, at)
        end = start if kind in WITHOUT_CONTENT else start + size
        if end > size_bytes:
            raise _damage(window.file, at, f"its member of {size} bytes reaches past the end at byte {size_bytes}")
        next_at = end + -end % BLOCK_BYTES
        if kind in EXTRAS:
            said = _extra(window, at, kind, size, said)
        else:
            name = said.name or _name(header)
            if kind == b"S":
                raise _damage(window.file, at, f"{_shown(name)} is a sparse file: write the tar without --sparse")
            if kind in REGULAR and not name.endswith(b"/"):
                yield Member(name, entry, start, size)
            entry, said = next_at, _Said()
        at = next_at


def _header(window: Window, at: int) -> bytes | None:
    """The header at byte `at`, or None at the end of the archive."""
    file = window.file
    if at + BLOCK_BYTES > file.size_bytes:
        raise _damage(file, at, "it ends without the empty blocks that close a tar: it was cut short")
    header = window.bytes_at(at, BLOCK_BYTES)
    if header == EMPTY_BLOCK:
        _check_nothing_follows(file, at)
        return None
    if not _has_its_checksum(header):
        kind = next((name for magic, name in COMPRESSED.items() if at == 0 and header.startswith(magic)), None)
        if kind is not None:
            raise ValueError(f"{file.path} is compressed ({kind}), so nothing in it can be read by itself: unpack it")
        raise _damage(file, at, "no tar header is there (its checksum is wrong)")
    return header


def _has_its_checksum(header: bytes) -> bool:
    """Whether the header's bytes, with blanks for the checksum itself, add up to what it says."""
    try:
        stated = int(header[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    summed = header[:148] + b" " * 8 + header[156:]
    # The lower half of Adler-32 is 1 + the sum of the bytes modulo 65521, and found in a twentieth of sum's time.
    if stated >= 0 and zlib.adler32(summed) & 0xFFFF == (stated + 1) % 65521:
        return True
    # Old writers added the bytes as signed numbers, which only names beyond ASCII show.
    return stated == sum(summed) - 256 * sum(byte > 127 for byte in summed)


def _check_nothing_follows(file: ByteFile, end: int) -> None:
    for at in range(end, file.size_bytes, WINDOW_BYTES):
        chunk = file.bytes_at(at, min(WINDOW_BYTES, file.size_bytes - at))
        if chunk.strip(b"\0"):
            place = at + len(chunk) - len(chunk.lstrip(b"\0"))
            raise _damage(file, place, f"the tar ended at byte {end}, yet more follows (two tars in one file?)")


def _size(header: bytes, file: ByteFile, at: int) -> int:
    field = header[124:136]
    if field[0] & 0x80:
        size = int.from_bytes(field, "big", signed=True) + (1 << 95)  # without the bit that marks base 256
    else:
        digits = field.partition(b"\0")[0].strip() or b"0"
        size = int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else -1
    if not 0 <= size < 1 << 62:
        raise _damage(file, at, f"the size of its member, {field!r}, is no number")
    return size


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _extra(window: Window, at: int, kind: bytes, size: int, said: _Said) -> _Said:
    """What is known of the next member after an extra entry has been read as well."""
    if size > MOST_EXTRA_BYTES:
        raise _damage(window.file, at, f"a name or pax entry of {size} bytes; expected at most {MOST_EXTRA_BYTES}")
    content = window.bytes_at(at + BLOCK_BYTES, size)
    if kind == GNU_NAME:
        return said._replace(name=content.rstrip(b"\0"))
    if kind == GNU_LINK:
        return said
    records = _pax_records(content, window.file, at)
    if kind == PAX_FOR_ALL:
        if records.keys() & {b"path", b"size"}:
            raise _damage(window.file, at, "a pax entry gives one path or size to all members")
        return said
    if any(key.startswith(b"GNU.sparse.") for key in records):
        raise _damage(window.file, at, "a sparse file: write the tar without --sparse")
    length = records.get(b"size", b"")
    if length and (not length.isdigit() or len(length) > 18):
        raise _damage(window.file, at, f"its pax size {_shown(length[:40])} is no number")
    return _Said(records.get(b"path", said.name), int(length) if length else said.size)


def _pax_records(content: bytes, file: ByteFile, at: int) -> dict[bytes, bytes]:
    """The records `length key=value newline` of a pax entry."""
    records, place = {}, 0
    while place < len(content) and content[place]:
        match = PAX_RECORD.match(content, place)
        end = place + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(content) or content[end - 1] != ord("\n"):
            raise _damage(file, at, f"byte {place} of its pax entry starts no record")
        records[match[2]] = content[match.end() : end - 1]
        place = end
    return records


def _shown(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _damage(file: ByteFile, at: int, what: str) -> ValueError:
    return ValueError(f"{file.path}, byte {at}: {what}. Copy or write the tar again")
