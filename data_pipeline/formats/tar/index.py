"""Where the samples of tar shards lie, and the file beside the shards that keeps this for the next time.

Members of one shard whose paths agree up to the first dot of the file name make a sample (WebDataset's rule):
`n01/42.jpg` and `n01/42.cls`. Other members, `n01/42.seg.png` or `README`, are passed over; but where an image and a
label share a name with dots, `n01/42.v2.jpg` and `n01/42.v2.cls`, a sample would be lost, which is refused.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline.files.byte_file import ByteFile, Window
from data_pipeline.files.kept_index import keep_index, kept_index
from data_pipeline.formats.tar.members import Member, members

LabelFrom = Literal["cls", "json"]
IMAGE_EXTENSIONS = frozenset({b"jpg", b"jpeg", b"png", b"webp", b"bmp"})
MOST_LABEL_DIGITS = 18  # of an int64
MOST_LABEL_BYTES = {"cls": 64, "json": 1 << 20}
EXPECTED_LABEL = {
    "cls": "the digits of a class, 0 or above",
    "json": 'an object such as {"label": 42}, of a class 0 or above, or with cls, class, ... in place of label',
}
LARGEST_IMAGE_BYTES = 2**32 - 1
LABEL_KEYS = ("label", "cls", "class", "class_id", "target", "identity", "identity_id", "person_id")  # of a .json
MEMBERS_TRIED = 64  # to see where labels stand
FORM = 2  # of the file that keeps an index: a new number whenever that changes


class TarIndex(NamedTuple):
    """The samples of all shards in a row; 24 bytes each."""

    ends: NDArray[np.int64]  # per shard: the number of samples in it and before it
    labels: NDArray[np.int64]
    starts: NDArray[np.int64]  # of the images in their shards
    sizes: NDArray[np.uint32]
    leads: NDArray[np.uint32]  # from the start of an image's entry to that of the image


def tar_index(shards: Sequence[Path], label_from: LabelFrom | None) -> TarIndex:
    """The index of `shards`: the one kept beside the first of them if it fits their sizes and times, else a new one.

    A new one is kept where the folder can be written to. ValueError naming shard and byte where a tar is damaged or a
    sample has no label or no image.
    """
    path, seal = _kept_at(shards, label_from)
    kept = _whole(kept_index(path, seal), len(shards))
    if kept is not None:
        return kept
    index = _new_index(shards, label_from or _place_of_labels(shards[0]))
    keep_index(path, seal, index._asdict())
    return index


def _place_of_labels(shard: Path) -> LabelFrom:
    """`cls` if one of the first members is a .cls, else `json` if one is a .json; `cls` where nothing tells."""
    first = islice(members(Window(ByteFile(shard))), MEMBERS_TRIED)
    extensions = {member.name.rpartition(b"/")[2].partition(b".")[2].lower() for member in first}
    return "json" if b"json" in extensions and b"cls" not in extensions else "cls"


def _new_index(shards: Sequence[Path], label_from: LabelFrom) -> TarIndex:
    samples = _Samples()
    ends = np.zeros(len(shards), np.int64)
    for shard, path in enumerate(shards):
        _add_shard(samples, ByteFile(path), label_from)
        ends[shard] = len(samples.labels)
        if ends[shard] == (ends[shard - 1] if shard else 0):
            raise ValueError(f"{path} holds no sample: expected members such as 000042.jpg and 000042.{label_from}")
    return TarIndex(
        ends,
        np.frombuffer(samples.labels, np.int64),
        np.frombuffer(samples.starts, np.int64),
        np.frombuffer(samples.sizes, np.uint32),
        np.frombuffer(samples.leads, np.uint32),
    )


class _Samples:
    """Growing columns: no Python object per image."""

    def __init__(self) -> None:
        self.labels, self.starts = array("q"), array("q")
        self.sizes, self.leads = array("I"), array("I")

    def append(self, label: int, image: Member) -> None:
        self.labels.append(label)
        self.starts.append(image.start)
        self.sizes.append(image.size)
        self.leads.append(image.start - image.entry)


def _add_shard(samples: _Samples, file: ByteFile, label_from: LabelFrom) -> None:
    """Append the samples of one shard, each when it is complete; what waits meanwhile is mostly one member."""
    window, label_extension = Window(file), label_from.encode()
    images: dict[bytes, Member] = {}
    labels: dict[bytes, tuple[int, Member]] = {}
    dotted: tuple[set[bytes], set[bytes]] = set(), set()
    for member in members(window):
        folder, slash, file_name = member.name.rpartition(b"/")
        stem, _, extension = file_name.partition(b".")
        extension = extension.lower()
        is_image = extension in IMAGE_EXTENSIONS
        if not stem or not (is_image or extension == label_extension):
            name, _, last = member.name.rpartition(b".")
            if last.lower() in (*IMAGE_EXTENSIONS, label_extension):
                dotted[last.lower() == label_extension].add(name)
            continue
        key = folder + slash + stem
        if is_image:
            _check_image(file, member)
        else:
            label = _label(window, member, label_from)
        if key in (images if is_image else labels):
            raise _fault(file, member, f"its sample has another {'image' if is_image else 'label'} already")
        if is_image and key in labels:
            samples.append(labels.pop(key)[0], member)
        elif is_image:
            images[key] = member
        elif key in images:
            samples.append(label, images.pop(key))
        else:
            labels[key] = label, member
    for image in images.values():
        other = "json" if label_from == "cls" else "cls"
        raise _fault(file, image, f"no .{label_from} beside it gives its label: add it, or take labels from .{other}")
    for _, member in labels.values():
        raise _fault(file, member, "it labels no image (a regular file of type jpg, jpeg, png, webp or bmp)")
    _refuse_lost(file, dotted[0] & dotted[1])


def _refuse_lost(file: ByteFile, dotted_samples: set[bytes]) -> None:
    if dotted_samples:
        first = min(dotted_samples).decode(errors="backslashreplace")
        raise ValueError(
            f"{file.path}: {len(dotted_samples):,} images and their labels have a dot in their names, such as "
            f"{first}.*: a sample's name ends at the first dot (WebDataset's rule), so that they would be left out. "
            "Write _ in place of the dot"
        )


def _check_image(file: ByteFile, member: Member) -> None:
    if member.size > LARGEST_IMAGE_BYTES:
        raise _fault(file, member, f"an image of {member.size} bytes; expected up to {LARGEST_IMAGE_BYTES}")


def _label(window: Window, member: Member, label_from: LabelFrom) -> int:
    content = b""
    if member.size <= MOST_LABEL_BYTES[label_from]:
        content = window.bytes_at(member.start, member.size)
    label = _LABELS[label_from](content)
    if label is None:
        raise _fault(
            window.file, member, f"found {content[:40]!r} ({member.size} bytes), expected {EXPECTED_LABEL[label_from]}"
        )
    return label


def _number_label(content: bytes) -> int | None:
    digits = content.strip()
    return int(digits) if digits.isdigit() and len(digits) <= MOST_LABEL_DIGITS else None


def _json_label(content: bytes) -> int | None:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    label = next((found[key] for key in LABEL_KEYS if key in found), None) if isinstance(found, dict) else None
    return label if type(label) is int and 0 <= label < 10**MOST_LABEL_DIGITS else None


_LABELS: dict[str, Callable[[bytes], int | None]] = {"cls": _number_label, "json": _json_label}


def _fault(file: ByteFile, member: Member, what: str) -> ValueError:
    name = member.name.decode(errors="backslashreplace")
    return ValueError(f"{file.path}, member {name} at byte {member.entry}: {what}")


def _kept_at(shards: Sequence[Path], label_from: LabelFrom | None) -> tuple[Path, NDArray[np.int64]]:
    """Where the index of these shards is kept, and what must not have changed since: sizes and times, (shards, 2)."""
    folder = shards[0].parent
    names = [os.path.relpath(shard, folder) for shard in shards]
    digest = hashlib.sha256(json.dumps([FORM, label_from, names]).encode()).hexdigest()
    states = [os.stat(shard) for shard in shards]
    seal = np.array([(state.st_size, state.st_mtime_ns) for state in states], np.int64)
    return folder / f"tar-index-{digest[:16]}.npz", seal


def _whole(arrays: Mapping[str, NDArray[Any]] | None, shards: int) -> TarIndex | None:
    """The index that was kept, or None where its arrays do not fit each other."""
    if arrays is None or set(arrays) != set(TarIndex._fields):
        return None
    index = TarIndex(**arrays)
    kinds = [(column.dtype, column.shape) for column in index[1:]]
    count = index.labels.size
    expected = [(np.dtype(kind), (count,)) for kind in (np.int64, np.int64, np.uint32, np.uint32)]
    is_whole = kinds == expected and index.ends.shape == (shards,) and index.ends[-1] == count
    return index if is_whole else None
