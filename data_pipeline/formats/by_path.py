"""A set of images from its path, whichever form it has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from data_pipeline.formats.folders.folder import FolderSource
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.table.names import GUESSED, ColumnError, ColumnNames
from data_pipeline.formats.table.names import SUFFIXES as TABLE_SUFFIXES
from data_pipeline.formats.tar.source import TarSource
from data_pipeline.formats.verification_bin.source import BinSource
from data_pipeline.sets.joined import Join, JoinedSource, joined_sets
from data_pipeline.source import Source

LIST_SUFFIXES = (".lst", ".txt", ".tsv", ".csv")
FILES = "a .rec file, a .tar shard, a list (.lst, .txt, .tsv, .csv), a .parquet or .arrow file, a .bin of pairs"
FOLDERS = "a folder with train.rec, with .tar shards, with .parquet or .arrow files, or with one folder per identity"
MOST_NAMED = 5  # entries of a folder that nothing is known of


def source_at(
    path: Path | Sequence[Path],
    *,
    join: Join = "offset",
    columns: ColumnNames = GUESSED,
    root: Path | None = None,
    needs_table: bool = True,
) -> Source:
    """The set in `path`, or the sets in several paths as one (see `JoinedSource` for what `join` does to labels).

    A file's form is told by its suffix; a folder is what it has of train.rec, a single other .rec, .tar shards,
    .parquet or .arrow files, and folders, the first of them. `shard-{00000..00127}.tar` and `train-*.parquet` are one
    set as well; so are shards or tables given one by one and merged. `columns` are those of the tables among them;
    ColumnError where a table has not what is named or, with `needs_table`, where something is named and there is no
    table. The paths of lists begin in `root`, if it is given. What opening costs is said by each source's class.
    FileNotFoundError for what is missing; ValueError, which names what was looked for, for what is none of these.
    """
    paths = [Path(path)] if isinstance(path, str | os.PathLike) else [Path(each) for each in path]
    if needs_table and root is not None and not any(each.suffix.lower() in LIST_SUFFIXES for each in paths):
        raise ValueError(f"root {root}: {', '.join(map(str, paths))} is no list, whose paths could begin there")
    source = _opened_all(paths, join, columns, root)
    _refuse_repeated(source.files)
    if needs_table and columns != GUESSED and not any(map(_is_table, joined_sets(source))):
        raise ColumnError(f"{_asked(columns)}: {', '.join(map(str, paths))} is no table, which has columns")
    return source


def _opened_all(paths: Sequence[Path], join: Join, columns: ColumnNames, root: Path | None) -> Source:
    if len(paths) == 1:
        return _opened(paths[0], columns, root)
    suffixes = {each.suffix.lower() for each in paths}
    if join == "merge" and suffixes == {".tar"}:
        return TarSource(paths)
    if join == "merge" and len(suffixes) == 1 and suffixes <= set(TABLE_SUFFIXES):
        return _table(paths, columns)
    return JoinedSource([_opened(each, columns, root) for each in paths], join)


def _refuse_repeated(files: Sequence[Path]) -> None:
    """ValueError where two names are of one file or folder: each of its people would be two classes, or count twice."""
    first_of: dict[str, Path] = {}
    for file in files:
        first = first_of.setdefault(os.path.realpath(file), file)
        if first is not file:
            raise ValueError(
                f"{file} is named twice{'' if first == file else f', first as {first}'}: name each set once"
            )


def _asked(columns: ColumnNames) -> str:
    return " and ".join(f"{what}_column {name!r}" for what, name in columns._asdict().items() if name is not None)


def _opened(path: Path, columns: ColumnNames, root: Path | None) -> Source:
    if path.is_dir():
        return _opened_folder(path, columns)
    suffix = path.suffix.lower()
    if suffix == ".rec":
        return RecordSource(path)
    if suffix == ".tar":
        return TarSource(path)
    if suffix in TABLE_SUFFIXES:
        return _table(path, columns)
    if suffix in LIST_SUFFIXES:
        return _list(path, root)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; expected {FILES}, or {FOLDERS}")
    if suffix == ".bin":
        return BinSource(path)
    raise ValueError(f"{path}: its suffix {suffix!r} names no form of a data set; expected {FILES}, or {FOLDERS}")


def _opened_folder(path: Path, columns: ColumnNames) -> Source:
    if (path / "train.rec").is_file():
        return RecordSource(path / "train.rec")
    suffixes, records, has_folders = _kinds(path)
    if len(records) == 1:
        return RecordSource(path / records[0])
    if records:
        raise ValueError(f"{path} holds {len(records)} .rec files and no train.rec: name each, as a list of paths")
    if ".tar" in suffixes:
        return TarSource(path)
    if suffixes & set(TABLE_SUFFIXES):
        return _table(path, columns)
    if has_folders:
        return FolderSource(path)
    found = ", ".join(sorted(os.listdir(path))[:MOST_NAMED]) or "nothing"
    raise ValueError(f"{path} holds {found}; expected {FOLDERS}")


def _kinds(path: Path) -> tuple[set[str], list[str], bool]:
    """The suffixes of a folder's files, its .rec files, and whether it has folders; hidden entries are passed over."""
    suffixes: set[str] = set()
    records: list[str] = []
    has_folders = False
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                has_folders = True
                continue
            suffix = os.path.splitext(entry.name)[1].lower()
            suffixes.add(suffix)
            if suffix == ".rec":
                records.append(entry.name)
    return suffixes, records, has_folders


# Imported when needed, as lists and tables are read with pyarrow, whose import takes 0.1 to 0.2 s.


def _list(path: Path, root: Path | None) -> Source:
    from data_pipeline.formats.folders.image_list import ListSource

    return ListSource(path, root)


def _table(path: Path | Sequence[Path], columns: ColumnNames) -> Source:
    from data_pipeline.formats.table.source import TableSource

    return TableSource(path, columns=columns)


def _is_table(source: Source) -> bool:
    from data_pipeline.formats.table.source import TableSource

    return isinstance(source, TableSource)
