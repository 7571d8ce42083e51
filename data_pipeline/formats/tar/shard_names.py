"""Which tar files a path means: a folder, a pattern, one file, or some of each."""

import glob
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?P<after>(?:-of-\d+)?\.tar)")  # the last number of a name
BRACES = re.compile(r"\{([^{}]*)\}")
NUMBER_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
MOST_SHARDS = 1_000_000
MOST_NAMED = 5  # missing shards in one message


def shard_paths(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """The tar files meant by a folder of them, a glob (`train-*.tar`), braces (`train-{0000..0099}.tar`), one file, or
    a sequence of these; numbered names in the order of their numbers.

    ValueError where a row of numbers in a folder or a glob has gaps, where a file that braces name is missing, or where
    a file is meant twice; FileNotFoundError where there is none.
    """
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    found = list(chain.from_iterable(_meant(str(path)) for path in several))
    if not found:
        raise FileNotFoundError(f"{paths} names no tar file; expected a folder, a pattern, or shard-000000.tar or such")
    path, times = Counter(found).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{path} is meant {times} times: name each shard once")
    return found


def _meant(path: str) -> list[Path]:
    if Path(path).is_file():
        return [Path(path)]
    if Path(path).is_dir():
        return _row([file for file in Path(path).iterdir() if file.suffix == ".tar" and file.name[0] != "."], path)
    if BRACES.search(path):
        return _all_there([Path(name) for name in _expanded(path)], path)
    if glob.has_magic(path):
        return _row([Path(name) for name in glob.glob(path)], path)
    raise FileNotFoundError(f"{path} is missing; expected a tar file, a folder of them, or a pattern")


def _row(files: list[Path], path: str) -> list[Path]:
    """The files by name and number; ValueError if a number between the first and the last of a row is missing."""
    if not files:
        raise FileNotFoundError(f"{path} holds no .tar file; a compressed one (.tar.gz) is to be unpacked first")
    rows: dict[tuple[str, str], dict[int, Path]] = {}
    for file in files:
        match = NUMBERED.fullmatch(file.name)
        before, number, after = (match["before"], int(match["number"]), match["after"]) if match else (file.name, 0, "")
        row = rows.setdefault((str(file.parent / before), after), {})
        if row.setdefault(number, file) != file:
            raise ValueError(f"{file} and {row[number]} have the same number: move one of them away")
    for row in rows.values():
        first, last = min(row), max(row)
        if missing := last + 1 - first - len(row):
            gaps = (number for number in range(first, last) if number not in row)
            named = ", ".join(str(number) for number, _ in zip(gaps, range(MOST_NAMED), strict=False))
            raise ValueError(
                f"{path}: of the shards {row[first].name} to {row[last].name} {missing} are missing, number {named}"
                f"{', ...' if missing > MOST_NAMED else ''}: copy them again, or name the shards you mean one by one "
                "or with braces, such as shard-{000..004}.tar"
            )
    return [file for _, row in sorted(rows.items()) for _, file in sorted(row.items())]


def _all_there(files: list[Path], path: str) -> list[Path]:
    missing = [file for file in files if not file.is_file()]
    if missing:
        named = ", ".join(map(str, missing[:MOST_NAMED]))
        raise ValueError(f"{path}: {len(missing)} of {len(files)} shards are missing: {named}. Copy them again")
    return files


def _expanded(pattern: str) -> Iterator[str]:
    """The names that `{a,b}` and `{00..12}` stand for, as a shell has it; braces within braces are no pattern."""
    names = [pattern]
    while match := BRACES.search(names[0]):
        parts = _alternatives(match[1])
        if len(names) * len(parts) > MOST_SHARDS:
            raise ValueError(f"{pattern} stands for more than {MOST_SHARDS:,} names")
        # What was put in holds no braces, so that each name has the next ones at its own first place.
        names = [BRACES.sub(part.replace("\\", "\\\\"), name, count=1) for name in names for part in parts]
    yield from names


def _alternatives(inside: str) -> Sequence[str]:
    if match := NUMBER_RANGE.fullmatch(inside):
        first, last = int(match[1]), int(match[2])
        if not 0 <= last - first < MOST_SHARDS:
            raise ValueError(f"{{{inside}}}: expected at most {MOST_SHARDS:,} numbers, the smaller one first")
        return [f"{number:0{len(match[1])}d}" for number in range(first, last + 1)]
    return inside.split(",")
