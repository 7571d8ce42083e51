import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.formats.by_path import source_at
from data_pipeline.formats.folders.folder import FolderSource
from data_pipeline.formats.folders.image_list import ListSource
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.formats.table.source import TableSource
from data_pipeline.formats.tar.source import TarSource
from data_pipeline.sets.joined import Join, JoinedSource


def records(path_rec: Path) -> Path:
    path_rec.parent.mkdir(exist_ok=True)
    with RecordWriter(path_rec) as writer:
        writer.append(0, b"r0")
        writer.append(1, b"r1")
    return path_rec


def folder(root: Path) -> Path:
    for identity in ("ann", "bob"):
        (root / identity).mkdir(parents=True)
        (root / identity / "1.jpg").write_bytes(identity.encode())
    return root


def shard(path: Path, label: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in (("0.jpg", b"\xff\xd8\xff"), ("0.cls", b"%d" % label)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def table(path: Path, *labels: int | str) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": [b"x"] * len(labels), "label": list(labels)}), path)
    return path


def test_records_are_known_by_file_or_folder(tmp_path: Path) -> None:
    path = records(tmp_path / "train.rec")
    folder(tmp_path)  # beside train.rec, which says what the folder is
    for named in (path, tmp_path, str(path), [path]):
        assert isinstance(source_at(named), RecordSource)  # type: ignore[arg-type]
    other = records(tmp_path / "other" / "faces.rec")
    assert isinstance(source_at(other.parent), RecordSource)
    records(other.with_name("more.rec"))
    with pytest.raises(ValueError, match=r"holds 2 \.rec files and no train\.rec: name each"):
        source_at(other.parent)


def test_folders_of_identities_are_known(tmp_path: Path) -> None:
    assert isinstance(source_at(folder(tmp_path)), FolderSource)


@pytest.mark.parametrize("suffix", [".txt", ".lst", ".tsv", ".csv", ".TXT"])
def test_lists_are_known_by_their_suffix(tmp_path: Path, suffix: str) -> None:
    path = folder(tmp_path).joinpath(f"train{suffix}")
    path.write_text("ann/1.jpg\t0\n")
    assert isinstance(source_at(path), ListSource)


def test_shards_are_known_by_file_folder_and_pattern(tmp_path: Path) -> None:
    paths = [shard(tmp_path / f"train-{at}.tar", label=at) for at in range(2)]
    for named, count in ((paths[0], 1), (tmp_path, 2), (tmp_path / "train-{0..1}.tar", 2)):
        source = source_at(named)
        assert isinstance(source, TarSource)
        assert len(source) == count


def test_tables_are_known_by_file_folder_and_pattern(tmp_path: Path) -> None:
    paths = [table(tmp_path / f"{at}.parquet", 0, 5) for at in range(2)]
    for named, count in ((paths[0], 2), (tmp_path, 4), (tmp_path / "*.parquet", 4)):
        source = source_at(named)
        assert isinstance(source, TableSource)
        assert len(source) == count


def test_several_paths_are_several_sets_of_any_forms(tmp_path: Path) -> None:
    source = source_at([records(tmp_path / "a.rec"), folder(tmp_path / "people")])
    assert isinstance(source, JoinedSource)
    assert source.labels.tolist() == [0, 1, 2, 3]
    again = source_at([tmp_path / "a.rec", records(tmp_path / "b.rec")], join="merge")
    assert again.labels.tolist() == [0, 1, 0, 1]


def test_shards_named_one_by_one_are_one_set_when_merged_and_several_when_not(tmp_path: Path) -> None:
    shards = [shard(tmp_path / f"{at}.tar", label=1) for at in range(2)]
    tables = [table(tmp_path / f"{at}.parquet", "ann", "bob") for at in range(2)]
    assert isinstance(source_at(shards, join="merge"), TarSource)
    assert isinstance(source_at(tables, join="merge"), TableSource)
    assert source_at(shards, join="merge").labels.tolist() == [1, 1]
    assert source_at(shards).labels.tolist() == [1, 3]
    assert source_at(tables).labels.tolist() == [0, 1, 2, 3]


def test_what_is_no_set_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds nothing; expected a folder with train\.rec, with \.tar shards"):
        source_at(tmp_path)
    (tmp_path / "notes.pdf").write_bytes(b"")
    (tmp_path / ".hidden").mkdir()
    with pytest.raises(ValueError, match=r"holds \.hidden, notes\.pdf; expected a folder with"):
        source_at(tmp_path)
    with pytest.raises(
        ValueError, match=r"notes\.pdf: its suffix '\.pdf' names no form of a data set; expected a \.rec"
    ):
        source_at(tmp_path / "notes.pdf")
    with pytest.raises(ValueError, match="no set to join"):
        source_at([])


@pytest.mark.parametrize("name", ["none", "none.rec", "none.tar", "none.txt", "none.pdf"])
def test_what_is_missing_is_named_with_what_was_expected(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"{name} is missing; expected"):
        source_at(tmp_path / name)


def test_other_forms_than_lists_and_tables_do_not_import_pyarrow(tmp_path: Path) -> None:
    program = "import sys; from data_pipeline.formats.by_path import source_at; "
    program += "assert source_at(sys.argv[1]).num_classes == 2; "
    program += "assert not any(name.startswith(('pyarrow', 'nvidia', 'torch', 'partial_fc')) for name in sys.modules)"
    subprocess.run([sys.executable, "-c", program, str(folder(tmp_path))], check=True, cwd=Path(__file__).parents[3])


def test_the_paths_of_a_list_may_begin_in_another_folder(tmp_path: Path) -> None:
    people = folder(tmp_path / "people")
    (tmp_path / "lists").mkdir()
    listed = tmp_path / "lists" / "all.txt"
    listed.write_text("ann/1.jpg 0\nbob/1.jpg 1\n")
    assert source_at(listed, root=people).read(1).tobytes() == b"bob"
    with pytest.raises(ValueError, match=r"root .*people: .*people is no list, whose paths could begin there"):
        source_at(people, root=people)
    assert len(source_at(people, root=people, needs_table=False)) == 2


@pytest.mark.parametrize("join", ["offset", "merge"])
def test_a_set_that_is_named_twice_is_refused(tmp_path: Path, join: Join) -> None:
    shards = [shard(tmp_path / "tar" / f"{at}.tar", at) for at in (0, 1)]
    rec = records(tmp_path / "rec" / "train.rec")
    tables = table(tmp_path / "table" / "train.parquet", "ann"), table(tmp_path / "more" / "train.parquet", "bob")
    people = folder(tmp_path / "people")
    linked = tmp_path / "linked"
    linked.symlink_to(people)
    for paths in (
        [rec, rec],
        [rec.parent, rec],
        [people, linked],
        [people / ".." / "people", people],
        [shards[0].parent, shards[1]],
        [tables[0].parent, tables[0]],
        [tables[0], tables[1], tables[0]],
    ):
        with pytest.raises(ValueError, match=r"is named twice|is meant 2 times") as refused:
            source_at(paths, join=join)
        assert str(paths[-1].name) in str(refused.value)
    assert len(source_at(tables, join=join)) == 2
