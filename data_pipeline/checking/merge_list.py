"""The merge list: pairs of labels of one set that are the same person, which training takes as one.

A text file of tab-separated lines, which a person looks through first. Lines may be taken out or added; the last one
says no more than that the list is whole:

    # partial-fc merge of 4000 images, fingerprint 9c3a60b2
    label <tab> into <tab> why
    31 <tab> 17 <tab> Ann Lee and Ann-Lee: cosine 0.983
    # 1 listed

Labels mean nothing in another set, so the list is bound to the set it was made for, as a quarantine list is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from data_pipeline.checking.quarantine import CONTROLS
from data_pipeline.files.whole_file import WholeFile
from data_pipeline.sets.fingerprint import fingerprint
from data_pipeline.source import Source

COLUMNS = "label\tinto\twhy"
LINE = re.compile(r"(\d{1,18})\t(\d{1,18})(\t.*)?")
TAIL = re.compile(r"# \d{1,18} listed")


def write_merge_list(path: Path, source: Source, pairs: Iterable[tuple[int, int, str]]) -> None:
    """Writes the pairs of labels and why each is one. FileExistsError where `path` is a file of another kind."""
    if path.exists() and not path.read_bytes().startswith(b"# partial-fc merge of "):
        raise FileExistsError(f"{path} exists and is no merge list: choose another name")
    lines = [f"{label}\t{into}\t{why.translate(CONTROLS)}" for label, into, why in pairs]
    text = "\n".join([_head(source), COLUMNS, *lines, f"# {len(lines)} listed", ""])
    with WholeFile(path) as file:
        file.write(text.encode(errors="surrogateescape"))


def merged_labels(path: Path, source: Source) -> list[tuple[int, int]]:
    """The listed pairs. ValueError for a list of another set, one cut short, and any line that is none."""
    head, columns, *lines = [*path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(), "", ""][:-1]
    if head != _head(source) or columns != COLUMNS:
        raise ValueError(
            f"{path} begins with {head[:80]!r}: expected {_head(source)!r}; it is no merge list, or it was made for "
            "another set, or that set was changed: let partial-fc clean make it again"
        )
    lines = [line for line in lines if line]
    if not lines or not TAIL.fullmatch(lines.pop()):
        raise ValueError(
            f"{path} has no last line `# {len(lines)} listed`: it was cut short; let partial-fc clean make it again"
        )
    found = [(number, line, LINE.fullmatch(line)) for number, line in enumerate(lines, start=3)]
    for number, line, match in found:
        if match is None:
            raise ValueError(f"{path} line {number}: found {line[:80]!r}, expected `label <tab> into <tab> why`")
    return [(int(match[1]), int(match[2])) for _, _, match in found if match]


def _head(source: Source) -> str:
    return f"# partial-fc merge of {len(source)} images, fingerprint {fingerprint(source)}"
