"""Writes `.bin` verification sets."""

import operator
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_pipeline.files.whole_file import WholeFile


def write_bin(path: Path, images: Iterable[bytes], is_same: Sequence[bool]) -> None:
    """Write `images`, taken one at a time, two for each of `is_same`, as `pickle.load` reads them (protocol 3).

    The file appears under its name when it is whole. ValueError where the counts do not fit or an image is empty,
    FileExistsError where there is such a file.
    """
    count = 0
    with WholeFile(Path(path), replaces=False) as file:
        file.write(b"\x80\x03]")  # PROTO 3, EMPTY_LIST
        for image in images:
            if not 0 < len(image) < 1 << 32:
                raise ValueError(f"image {count} has {len(image)} bytes: expected 1 to {(1 << 32) - 1}")
            file.write(b"B" + len(image).to_bytes(4, "little") + image + b"a")  # BINBYTES, APPEND
            count += 1
        if count != 2 * len(is_same) or not count:
            raise ValueError(f"{count} images for {len(is_same)} pairs: expected two for each, and a pair at least")
        flags = b"".join(b"\x88a" if operator.truth(same) else b"\x89a" for same in is_same)  # NEWTRUE, NEWFALSE
        file.write(b"]" + flags + b"\x86.")  # TUPLE2, STOP
