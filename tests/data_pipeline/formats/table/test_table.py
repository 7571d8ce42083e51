import os
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from data_pipeline.formats.table.names import ColumnNames
from data_pipeline.formats.table.source import TableSource

IMAGES = [os.urandom(size) for size in (1, 200, 3, 40, 5)]
LABELS = [3, 0, 3, 1, 0]


def structs(images: list[bytes | None]) -> Any:
    """Images as the Hugging Face library writes them."""
    return pa.array([{"bytes": image, "path": "x.jpg"} for image in images])


def parquet(path: Path, table: Any) -> Path:
    pq.write_table(table, path, row_group_size=2)
    return path


def arrow_file(path: Path, table: Any) -> Path:
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def arrow_stream(path: Path, table: Any) -> Path:
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def compressed_stream(path: Path, table: Any) -> Path:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def test_caches_of_hugging_face_beside_a_set_are_passed_over(tmp_path: Path) -> None:
    data = pa.table({"image": structs(list(IMAGES)), "label": LABELS})
    arrow_stream(tmp_path / "data-00000-of-00001.arrow", data)
    arrow_stream(tmp_path / "cache-2d0a802b78a30b76.arrow", data)
    arrow_stream(tmp_path / "cache-0.arrow", pa.table({"indices": pa.array([1], pa.uint64())}))
    for state in (None, "{}", "damaged", '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}'):
        if state is not None:
            (tmp_path / "state.json").write_text(state)
        assert TableSource(tmp_path).labels.tolist() == LABELS
    arrow_stream(tmp_path / "mapped.arrow", data)
    assert TableSource(tmp_path).labels.tolist() == LABELS, "state.json lists what is of the set"


Writer = Callable[[Path, Any], Path]
WRITERS = {
    "t.parquet": parquet,
    "file.arrow": arrow_file,
    "stream.arrow": arrow_stream,
    "zstd.arrow": compressed_stream,
    "t.feather": arrow_file,
}


def table(**columns: Any) -> Any:
    return pa.table({"image": structs(list(IMAGES)), "label": LABELS, **columns})


def contents(source: TableSource) -> list[tuple[int, bytes]]:
    return [(source.label(sample), source.read(sample).tobytes()) for sample in range(len(source))]


@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
@pytest.mark.parametrize(
    "images", [structs, pa.array, lambda images: pa.array(images, pa.large_binary())], ids=["struct", "bytes", "large"]
)
def test_every_form_of_a_table_is_read(tmp_path: Path, name: str, write: Writer, images: Callable[..., Any]) -> None:
    source = TableSource(write(tmp_path / name, table(image=images(IMAGES), caption=["a"] * 5)))
    assert contents(source) == list(zip(LABELS, IMAGES, strict=True))
    assert (source.num_classes, source.labels.dtype.name, source.identities) == (4, "int64", None)
    assert source.name(3) == f"{tmp_path / name} row 3"


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
def test_texts_count_in_their_order_over_all_files(tmp_path: Path, name: str, write: Writer, kind: Any) -> None:
    one = write(
        tmp_path / f"1{name}", table(label=pa.array(["zoe", "bob", "zoe", "éva", "bob"], pa.string()).cast(kind))
    )
    two = write(
        tmp_path / f"2{name}", table(label=pa.array(["ann", "zoe", "ann", "ann", "bob"], pa.string()).cast(kind))
    )
    source = TableSource([one, two])
    assert source.identities is not None
    assert list(source.identities) == ["ann", "bob", "zoe", "éva"]
    assert source.labels.tolist() == [2, 1, 2, 3, 1, 0, 2, 0, 0, 1]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint32(), pa.uint64(), pa.int64()], ids=str)
def test_integers_of_any_width_are_labels(tmp_path: Path, kind: Any) -> None:
    path = parquet(tmp_path / "t.parquet", table(label=pa.array(LABELS, kind)))
    assert TableSource(path).labels.tolist() == LABELS


def test_a_folder_and_a_pattern_are_their_files_in_the_order_of_names(tmp_path: Path) -> None:
    for at in (2, 0, 1):
        rows = pa.table(
            {"jpg": pa.array(IMAGES[at : at + 1] * at, pa.binary()), "cls": pa.array([at] * at, pa.int64())}
        )
        parquet(tmp_path / f"train-{at:05}-of-00003.parquet", rows)
    (tmp_path / "README.md").write_text("about")
    for path in (tmp_path, tmp_path / "train-*.parquet"):
        source = TableSource(path)
        assert contents(source) == [(at, IMAGES[at]) for at in (1, 2, 2)], "the first file has no row"
        assert source.name(2) == f"{tmp_path / 'train-00002-of-00003.parquet'} row 1"
    (tmp_path / "train-00001-of-00003.parquet").rename(tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(ValueError, match=r"several splits, test and train: name one, such as .*test-\*\.parquet"):
        TableSource(tmp_path)
    with pytest.raises(ValueError, match="of 3 files 1 are missing, first number 1"):
        TableSource(tmp_path / "train-*.parquet")
    with pytest.raises(FileNotFoundError, match=r"holds no \.parquet, \.arrow, \.feather file"):
        TableSource(tmp_path / "valid-*.parquet")


def test_columns_can_be_named_and_are_not_guessed(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", table(thumbnail=IMAGES[::-1], fine=[9, 8, 7, 6, 5]))
    source = TableSource(path, columns=ColumnNames("thumbnail", "fine"))
    assert contents(source) == list(zip([9, 8, 7, 6, 5], IMAGES[::-1], strict=True))


@pytest.mark.parametrize(
    ("columns", "asked", "said"),
    [
        ({"label": [0]}, {}, "has the columns label (int64): expected one image column (bytes"),
        ({"image": [b"x"]}, {}, "has the columns image (binary): expected one label column (integers or texts)"),
        ({"image": [b"x"], "label": [0.5]}, {}, "label (double): expected one label column (integers or texts)"),
        ({"image": [b"x"], "id": [0]}, {}, "called one of label, labels,"),
        ({"image": [b"x"], "jpg": [b"x"], "label": [0]}, {}, "expected one image column"),
        ({"image": [b"x"], "label": [0], "identity": [1]}, {}, "label_column is to be named: "),
        ({"image": ["x"], "label": [0]}, {}, "image (string), label (int64): expected one image column"),
        ({"image": [b"x"], "label": [0], "id": [0]}, {"label": "lable"}, "and the nearest is 'label'"),
        ({"image": [b"x"], "label": [0.5]}, {"label": "lable"}, "and there is none"),
        ({"image": [b"x"], "label": [0], "identity": [1]}, {}, "found 2 of them"),
        ({"image": [b"x"], "label": [0]}, {"label": "lable"}, "label_column 'lable' is not there: "),
        ({"image": [b"x"], "label": [0]}, {"image": "label"}, "image_column 'label' cannot hold them: "),
    ],
)
def test_wrong_columns_are_refused_and_shown(
    tmp_path: Path, columns: dict[str, list[Any]], asked: dict[str, str], said: str
) -> None:
    path = parquet(tmp_path / "t.parquet", pa.table(columns))
    with pytest.raises(ValueError, match=re.escape(said)):
        TableSource(path, columns=ColumnNames(**asked))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (pa.array([0, 1, None, 2, None]), "t.parquet row 2: its label is null; 2 of 5 rows have none"),
        (pa.array([0, 1, 2, -1, 0]), "label -1 in row 3 of the set: expected labels from 0 on"),
        (pa.array([0, 1, 2, 2**64 - 1, 0], pa.uint64()), "label 18446744073709551615 in row 3 of the set"),
    ],
)
def test_rows_without_a_class_are_refused(tmp_path: Path, labels: Any, said: str) -> None:
    path = parquet(tmp_path / "t.parquet", table(label=labels))
    with pytest.raises(ValueError, match=re.escape(said)):
        TableSource(path)


def test_files_of_several_forms_are_refused(tmp_path: Path) -> None:
    one = parquet(tmp_path / "1.parquet", table())
    two = parquet(tmp_path / "2.parquet", table(label=["a", "b", "c", "d", "e"]))
    with pytest.raises(ValueError, match=r"2\.parquet: column 'label' is string, but int64 in .*1\.parquet"):
        TableSource([one, two])


def test_rows_without_an_image_are_named_when_they_are_read(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", table(image=structs([b"x", b"x", None, b"", b"x"])))
    source = TableSource(path)
    with pytest.raises(ValueError, match=r"t\.parquet row 2 holds no image bytes"):
        source.read(2)
    with pytest.raises(ValueError, match=r"t\.parquet row 3 is empty"):
        source.read(3)
    assert source.read(4).tobytes() == b"x"
    with pytest.raises(IndexError, match="sample 5 of 5"):
        source.read(5)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"x" * 100])
@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
def test_a_damaged_file_is_refused_by_its_name(
    tmp_path: Path, name: str, write: Writer, damage: Callable[[bytes], bytes]
) -> None:
    path = write(tmp_path / name, table())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(name)):
        TableSource(path)


@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
def test_whatever_bytes_are_wrong_is_a_value_error_or_harmless(tmp_path: Path, name: str, write: Writer) -> None:
    random = np.random.default_rng(7)
    path = write(tmp_path / name, table(label=["a", "b", "c", "d", "a"]))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for _ in range(60):
        wrong = whole.copy()
        wrong[random.integers(whole.size, size=3)] = random.choice([0, 127, 255], size=3)
        path.write_bytes(wrong.tobytes())
        try:
            contents(TableSource(path))
        except ValueError as error:
            refused += name in str(error)
    assert refused > 10


def test_a_stream_cut_between_two_batches_is_refused(tmp_path: Path) -> None:
    """pyarrow itself takes it for the whole."""
    path = arrow_stream(tmp_path / "t.arrow", table())
    path.write_bytes(path.read_bytes()[:-8])
    assert pa.ipc.open_stream(path.read_bytes()).read_all().num_rows == 5
    with pytest.raises(ValueError, match="has no end: it was cut short"):
        TableSource(path)


def test_a_damaged_or_changed_file_is_named_when_a_group_of_it_is_read(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", table())
    source = TableSource(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(100) + whole[104:])
    with pytest.raises(ValueError, match=r"t\.parquet cannot be read as a parquet file, it is damaged: "):
        source.read(0)
    source = TableSource(parquet(path, table()))
    parquet(path, table().slice(0, 3))
    assert source.read(2).tobytes() == IMAGES[2]
    with pytest.raises(ValueError, match=r"t\.parquet row 3 is gone: the file changed"):
        source.read(3)
    with pytest.raises(ValueError, match=r"t\.parquet has lost its row group 2: it changed"):
        source.read(4)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"t\.parquet is missing"):
        TableSource(path)


def test_tables_without_a_row_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no row; expected at least one image"):
        TableSource(parquet(tmp_path / "t.parquet", table().slice(0, 0)))


def test_groups_too_large_to_decode_for_one_image_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_pipeline.formats.table.source.LARGEST_GROUP_BYTES", 100)
    with pytest.raises(ValueError, match=r"row group 0 holds \d+ bytes .*: write it anew with row_group_size=100"):
        TableSource(parquet(tmp_path / "t.parquet", table()))


def test_a_cache_of_one_group_reads_the_same_and_holds_no_more(tmp_path: Path) -> None:
    source = TableSource(parquet(tmp_path / "t.parquet", table()), cached_bytes=1)
    for sample in (4, 0, 3, 1, 2, 0, 4):
        assert source.read(sample).tobytes() == IMAGES[sample]
        assert len(source._groups._groups) == 1


@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
def test_threads_pickles_and_forks_read_the_same(tmp_path: Path, name: str, write: Writer) -> None:
    images = [os.urandom(64) for _ in range(300)]
    path = write(tmp_path / name, pa.table({"image": images, "label": list(range(300))}))
    source = TableSource(path, cached_bytes=1000)
    again = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(4) as pool:
        for each in (source, again):
            assert [read.tobytes() for read in pool.map(each.read, range(300))] == images


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # the child only reads
def test_a_forked_process_reads_even_while_a_thread_of_its_parent_holds_the_lock(tmp_path: Path) -> None:
    source = TableSource(parquet(tmp_path / "t.parquet", table()))
    with source._groups._lock:
        child = os.fork()
        if child == 0:
            os._exit(int(contents(source) != list(zip(LABELS, IMAGES, strict=True))))
        assert os.waitpid(child, 0)[1] == 0
    assert contents(source) == list(zip(LABELS, IMAGES, strict=True))
