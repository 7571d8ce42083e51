import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.formats.folders import folder
from data_pipeline.formats.folders.folder import FolderSource


def written(root: Path, images: dict[str, bytes]) -> Path:
    for name, content in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def contents(source: FolderSource) -> list[tuple[int, bytes]]:
    return [(source.label(sample), source.read(sample).tobytes()) for sample in range(len(source))]


def test_labels_and_images_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    written(tmp_path, {"zoe/1.jpg": b"z1", "ann/b.PNG": b"ab", "ann/a.jpeg": b"aa", "Bob/1.webp": b"b1"})
    source = FolderSource(tmp_path)
    assert contents(source) == [(0, b"b1"), (1, b"aa"), (1, b"ab"), (2, b"z1")]
    assert source.identities is not None
    assert list(source.identities) == ["Bob", "ann", "zoe"]
    assert (len(source), source.num_classes, source.labels.dtype.name) == (4, 3, "int64")
    assert source.name(2) == str(tmp_path / "ann" / "b.PNG")


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder large enough, and unchanged for long enough, that what is found in it is kept."""
    monkeypatch.setattr(folder, "KEPT_FROM_IMAGES", 3)
    monkeypatch.setattr(folder, "SETTLED_NS", 0)
    root = written(tmp_path, {f"{name}/{at}.jpg": f"{name}{at}".encode() for name in ("ann", "bob") for at in range(2)})
    time.sleep(0.02)
    return root


def refuse_to_list(*_: object) -> None:
    raise AssertionError("the folders were listed")


def test_what_was_found_is_kept_and_read_the_next_time(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FolderSource(people)
    assert [path.name for path in people.iterdir() if path.is_file()] == [folder.INDEX]
    monkeypatch.setattr(folder, "_listed", refuse_to_list)
    again = FolderSource(people)
    assert contents(again) == contents(first)
    assert list(again.paths) == list(first.paths)


@pytest.mark.parametrize("change", ["add", "remove", "rename", "new identity", "other name", "restored time"])
def test_what_was_kept_is_not_believed_of_a_folder_that_changed(people: Path, change: str) -> None:
    FolderSource(people)
    before = os.stat(people / "ann")
    match change:
        case "add" | "restored time":
            (people / "ann" / "9.jpg").write_bytes(b"ann9")
        case "remove":
            (people / "ann" / "1.jpg").unlink()
        case "rename":
            (people / "ann" / "1.jpg").rename(people / "ann" / "9.jpg")
        case "new identity":
            written(people, {"abe/1.jpg": b"abe1"})
        case "other name":
            (people / "ann").rename(people / "zoe")
    if change == "restored time":
        os.utime(people / "ann", ns=(before.st_atime_ns, before.st_mtime_ns))
    found = FolderSource(people)
    expected = sorted(str(path) for path in people.glob("*/*.jpg"))
    assert [found.name(sample) for sample in range(len(found))] == expected


@pytest.mark.parametrize("damage", ["cut short", "empty", "other arrays", "another form", "compressed"])
def test_a_kept_index_that_is_damaged_is_no_index(people: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = contents(FolderSource(people))
    index = people / folder.INDEX
    if damage == "other arrays":
        with np.load(index) as arrays:
            kept = dict(arrays)
        np.savez(index, **{**kept, "counts": kept["counts"] + 1})
    elif damage == "compressed":
        with np.load(index) as arrays:
            np.savez_compressed(index, **arrays)
        monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it may be made to fill the memory"))
    elif damage == "another form":
        monkeypatch.setattr(folder, "FORM", folder.FORM + 1)
        monkeypatch.setattr(folder, "_whole", lambda arrays, _: arrays and pytest.fail("its seal was not looked at"))
    else:
        index.write_bytes(index.read_bytes()[:-40] if damage == "cut short" else b"")
    assert contents(FolderSource(people)) == first


def test_nothing_is_kept_of_a_folder_that_changed_just_now(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "SETTLED_NS", 3_600_000_000_000)
    FolderSource(people)
    assert not (people / folder.INDEX).exists()


def test_many_folders_listed_by_many_threads_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_pipeline.formats.folders.folder.FOLDERS_IN_A_TASK", 3)
    monkeypatch.setattr("data_pipeline.formats.folders.folder.FOLDERS_IN_A_WAVE", 11)
    names = [f"id{identity:03}/{image}.jpg" for identity in range(50) for image in range(1 + identity % 3)]
    source = FolderSource(written(tmp_path, {name: name.encode() for name in reversed(names)}))
    assert contents(source) == [(int(name[2:5]), name.encode()) for name in names]


def test_hidden_entries_are_passed_over_and_links_followed(tmp_path: Path) -> None:
    written(tmp_path, {"set/ann/1.jpg": b"1", "set/ann/.DS_Store": b"", "set/.cache/x": b"", "elsewhere/2.jpg": b"2"})
    (tmp_path / "set" / "bob").symlink_to(tmp_path / "elsewhere")
    assert contents(FolderSource(tmp_path / "set")) == [(0, b"1"), (1, b"2")]


def test_names_that_are_no_utf8_are_read(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    with open(folder + b"/\xfe.jpg", "wb") as file:
        file.write(b"image")
    assert contents(FolderSource(tmp_path)) == [(0, b"image")]


def test_everything_wrong_is_named_at_once(tmp_path: Path) -> None:
    written(tmp_path, {"ann/1.jpg": b"1", "ann/notes.txt": b"", "bob/deeper/1.jpg": b"1"})
    (tmp_path / "carl").mkdir()
    with pytest.raises(ValueError, match=r"ann/notes.txt is no image, .*bob/deeper is no image, .*carl has no images"):
        FolderSource(tmp_path)


def test_a_folder_of_images_or_of_nothing_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no folders in it"):
        FolderSource(tmp_path)
    written(tmp_path, {"1.jpg": b"1", "ann/1.jpg": b"1"})
    with pytest.raises(ValueError, match=r"1\.jpg: expected folders only"):
        FolderSource(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        FolderSource(tmp_path / "none")


def test_an_image_that_vanished_or_is_empty_is_named_when_it_is_read(tmp_path: Path) -> None:
    source = FolderSource(written(tmp_path, {"ann/1.jpg": b"1", "ann/2.jpg": b""}))
    with pytest.raises(ValueError, match=r"ann/2\.jpg is an empty file"):
        source.read(1)
    (tmp_path / "ann" / "1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"ann/1\.jpg is missing"):
        source.read(0)
    (tmp_path / "ann" / "1.jpg").mkdir()
    with pytest.raises(OSError, match=r"ann/1\.jpg cannot be read"):
        source.read(0)


def test_a_pickled_source_reads_the_same_and_many_threads_read_at_once(tmp_path: Path) -> None:
    names = [f"id{identity:02}/{image}.jpg" for identity in range(10) for image in range(5)]
    source = FolderSource(written(tmp_path, {name: name.encode() for name in names}))
    again = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(4) as pool:
        assert [image.tobytes() for image in pool.map(again.read, range(50))] == [name.encode() for name in names]
