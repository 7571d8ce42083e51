import os
import pickle
import random
import re
from pathlib import Path

import pytest

from data_pipeline.formats.folders.image_list import ListSource
from data_pipeline.formats.folders.list_lines import _layout, line_of, list_lines

IMAGES = {"a.jpg": b"A", "b c.jpg": b"BC", "deep/d.jpg": b"D"}


def listed(folder: Path, text: str | bytes, name: str = "train.txt") -> ListSource:
    for image, content in IMAGES.items():
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / image).write_bytes(content)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return ListSource(folder / name)


def contents(source: ListSource) -> list[tuple[int, bytes]]:
    return [(source.label(sample), source.read(sample).tobytes()) for sample in range(len(source))]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.txt", "a.jpg 3\nb c.jpg 0\ndeep/d.jpg 3\n"),
        ("train.txt", "a.jpg\t3\nb c.jpg\t0\ndeep/d.jpg\t3"),
        ("train.txt", "\r\na.jpg 3\r\n\r\nb c.jpg   0\r\ndeep/d.jpg 3\r\n\r\n"),
        ("train.tsv", "path\tlabel\na.jpg\t3\nb c.jpg\t0\ndeep/d.jpg\t3\n"),
        ("train.tsv", "a.jpg\t3\tx\nb c.jpg\t0\ty\ndeep/d.jpg\t3\tz\n"),
        ("train.csv", "a.jpg,3\nb c.jpg, 0\n deep/d.jpg ,3\n"),
        ("train.csv", "Image,Label\na.jpg,3\nb c.jpg,0\ndeep/d.jpg,3\n"),
        ("train.lst", "0\t3.000000\ta.jpg\n1\t0.000000\tb c.jpg\n2\t3.000000\tdeep/d.jpg\n"),
        ("train.lst", "0\t3.\ta.jpg\n1\t0.00\tb c.jpg\n2\t3\tdeep/d.jpg\n"),
        ("train.lst", "0\t3.0\t7.5\ta.jpg\n1\t0\t1\tb c.jpg\n2\t3.0\t0\tdeep/d.jpg\n"),
        ("train.lst", "1\ta.jpg\t3\t0\t0\t112\n1\tb c.jpg\t0\t1\t2\t112\n0\tdeep/d.jpg\t3\t0\t0\t0\n"),
    ],
    ids=[
        "spaces",
        "tabs",
        "crlf and blanks",
        "header",
        "more columns",
        "csv",
        "csv header",
        "im2rec",
        "points",
        "labels",
        "face",
    ],
)
def test_every_form_of_a_list_is_read(tmp_path: Path, name: str, text: str) -> None:
    source = listed(tmp_path, text, name)
    assert contents(source) == [(3, b"A"), (0, b"BC"), (3, b"D")]
    assert (source.num_classes, source.identities) == (4, None)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.txt", "a.jpg 3\nb c.jpg 0\n"),
        ("train.csv", "path,label\na.jpg,3\nb c.jpg,0\n"),
        ("train.csv", "image_id,person_id\na.jpg,3\nb c.jpg,0\n"),
        ("train.csv", "label,img_path\n3,a.jpg\n0,b c.jpg\n"),
        ("train.csv", 'path,label\n"a.jpg",3\n"b c.jpg",0\n'),
        ("train.csv", '"path","label"\r\n"a.jpg","3"\r\n"b c.jpg","0"\r\n'),
        ("train.csv", '"a.jpg",3\n"b c.jpg",0\n'),
        ("train.csv", ",image_path,identity,split\n0,a.jpg,3,train\n1,b c.jpg,0,train\n"),
        ("train.csv", "Filename,x,Class,id\na.jpg,1,3,7\nb c.jpg,1,0,8\n"),
        ("train.tsv", "id\tfile\tlabel\n7\ta.jpg\t3\n8\tb c.jpg\t0\n"),
        ("train.txt", "image_name subject\na.jpg 3\nb c.jpg 0\n"),
    ],
)
def test_headers_quotes_and_marks_of_other_programs_are_understood(
    tmp_path: Path, name: str, text: str, mark: bytes
) -> None:
    source = listed(tmp_path, mark + text.encode(), name)
    assert contents(source) == [(3, b"A"), (0, b"BC")]
    assert source.identities is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "photo,who\na.jpg,0\n",
            r"line 1: .*photo is missing: if this line is a header, or the path stands in another",
        ),
        ("0,a.jpg\n1,a.jpg\n", r"line 1: .*/0 is missing: if this line is a header, or the path stands in another"),
        ("path,age,sex\na.jpg,1,2\n", "line 1: a header of the columns path, age, sex: expected one of labels"),
        ('path,note,label\n"a.jpg","x, y",2\n', "line 2: found"),
        ("a.jpg,0\n".encode("utf-16"), "is text in UTF-16: save it as UTF-8"),
    ],
)
def test_a_first_line_that_is_not_understood_is_said_to_be_it(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        listed(tmp_path, text, "train.csv")


def test_paths_may_be_relative_to_another_root(tmp_path: Path) -> None:
    listed(tmp_path / "images", "a.jpg 0\n")
    (tmp_path / "list.txt").write_text("a.jpg 3\nb c.jpg 0\n")
    with pytest.raises(FileNotFoundError, match=r"relative to the list's folder, or to a root that is given \(--root"):
        ListSource(tmp_path / "list.txt")
    assert contents(ListSource(tmp_path / "list.txt", tmp_path / "images")) == [(3, b"A"), (0, b"BC")]


def test_labels_that_are_names_count_in_the_order_of_the_names(tmp_path: Path) -> None:
    source = listed(tmp_path, "a.jpg\tzoe\nb c.jpg\tann b\ndeep/d.jpg\tzoe\na.jpg\t17\n")
    assert source.labels.tolist() == [2, 1, 2, 0]
    assert source.identities is not None
    assert list(source.identities) == ["17", "ann b", "zoe"]


def test_a_path_may_be_absolute_and_may_come_twice(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.jpg"
    elsewhere.write_bytes(b"E")
    source = listed(tmp_path, f"a.jpg 1\n{elsewhere} 0\na.jpg 2\n")
    assert contents(source) == [(1, b"A"), (0, b"E"), (2, b"A")]


def test_a_list_parsed_in_chunks_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "path\tlabel\n\n" + "".join(
        f"a.jpg\t{'id' if names else ''}{at // 3}\n\n" for names in (0,) for at in range(40)
    )
    for chunk_bytes in (1, 7, 1 << 20):
        monkeypatch.setattr("data_pipeline.formats.folders.list_lines.BLOCK_BYTES", chunk_bytes)
        for each in (text, text.replace("\t", "\tid")):
            source = listed(tmp_path, each)
            assert source.labels.tolist() == [int(label) for label in _expected(source)]
            assert [source.line(sample) for sample in range(40)] == list(range(3, 83, 2))


def _expected(source: ListSource) -> list[int]:
    """13 labels: as numbers 0..13, as names in the order id0, id1, id10, id11, ..."""
    if source.identities is None:
        return [at // 3 for at in range(40)]
    order = sorted(f"id{label}" for label in range(14))
    return [order.index(f"id{at // 3}") for at in range(40)]


def test_the_place_of_an_image_is_its_list_line_and_path(tmp_path: Path) -> None:
    source = listed(tmp_path, "\na.jpg 0\n\n\nb c.jpg 1\n")
    assert source.name(0) == f"{tmp_path / 'train.txt'}, line 2: {tmp_path / 'a.jpg'}"
    assert source.name(1) == f"{tmp_path / 'train.txt'}, line 5: {tmp_path / 'b c.jpg'}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg 0\nb.jpg\n", "line 2: found b'b.jpg', expected a path and a label"),
        ("a.jpg\t0\n\nb.jpg 1\n", "line 3: found b'b.jpg 1'"),
        ("a.jpg 0\na.jpg one\n", "line 2: the label b'one' is no number from 0 on"),
        ("a.jpg 0\na.jpg -1\n", "line 2: the label b'-1' is no number from 0 on"),
        ("a.jpg -1\n", "line 1: the label b'-1' is no number from 0 on"),
        ("a.jpg 0\na.jpg 1.5\n", "line 2: the label b'1.5' is no number from 0 on"),
        ("a.jpg 0\na.jpg 1.0.0\n", "line 2: the label b'1.0.0' is no number from 0 on"),
        ("a.jpg 0\na.jpg 1..\n", "line 2: the label b'1..' is no number from 0 on"),
        ("a.jpg 0\na.jpg .0\n", "line 2: the label b'.0' is no number from 0 on"),
        ("a.jpg 0\na.jpg 1_0\n", "line 2: the label b'1_0' is no number from 0 on"),
        ("a.jpg 0\na.jpg " + "9" * 19 + "\n", "line 2: the label b'9999999999999999999' is no number"),
        ("a.jpg 0\na\0.jpg 1\n", "line 2: found"),
        ("\n\n", "lists no image"),
        ("path label\n", "lists no image"),
        ("", "lists no image"),
    ],
)
def test_a_bad_list_is_refused_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        listed(tmp_path, text)


def test_a_missing_file_is_named_with_its_line_when_the_list_is_opened_or_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train.txt, line 2: .*none\.jpg is missing: paths are relative to"):
        listed(tmp_path, "a.jpg 0\nnone.jpg 1\n")
    source = listed(tmp_path, "a.jpg 0\ndeep/d.jpg 1\n")
    (tmp_path / "deep" / "d.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"train.txt, line 2: .*deep/d\.jpg is missing"):
        source.read(1)
    with pytest.raises(FileNotFoundError, match=r"none\.txt is missing; expected a list of images"):
        ListSource(tmp_path / "none.txt")


def test_a_pickled_source_reads_the_same(tmp_path: Path) -> None:
    source = listed(tmp_path, "a.jpg 3\nb c.jpg 0\n")
    again = pickle.loads(pickle.dumps(source))
    assert contents(again) == contents(source)
    assert again.name(1) == source.name(1)


@pytest.mark.parametrize("suffix", [".txt", ".tsv", ".csv", ".lst"])
def test_lines_are_what_pythons_own_methods_of_bytes_say(tmp_path: Path, suffix: str) -> None:
    """Lists of random bytes, among them white space, controls, zeros and what is no UTF-8."""
    draw = random.Random(suffix)
    path, whole = tmp_path / f"list{suffix}", 0

    def piece() -> bytes:
        return bytes(draw.choices(b"  \r\x0b\x0c\x1c,ab01.\xff\xc3", k=draw.randrange(9)))

    for _ in range(400):
        first = draw.choice([b"a 1", b"a\t1", b"a,1", b"0\t1\ta", b"1\ta\t2\tb"])
        separator = next(sign for sign in (b"\t", b",", b" ") if sign in first)
        lines = [first, *(separator.join(piece() for _ in range(draw.choice([1, 2, 3, 3, 4]))) for _ in range(2))]
        path.write_bytes(b"\n".join(lines) + draw.choice([b"", b"\n", b"\n\n", b"\0"]))
        layout = _layout(first, suffix)
        numbered = [(number, line) for number, line in enumerate(path.read_bytes().split(b"\n"), 1) if line.strip()]
        found = [(number, layout.fields(line.strip())) for number, line in numbered]
        bad = [at for (at, line), (_, fields) in zip(numbered, found, strict=True) if b"" in fields or b"\0" in line]
        if bad:
            with pytest.raises(ValueError, match=rf"line {bad[0]}: found b"):
                list_lines(path)
            continue
        whole += 1
        read = list_lines(path)
        assert [text.as_buffer().to_pybytes() for text in read.paths] == [image for _, (image, _) in found]
        assert [text.as_buffer().to_pybytes() for text in read.labels] == [label for _, (_, label) in found]
        assert [line_of(row, read.skipped) for row in range(len(found))] == [number for number, _ in found]
    assert 40 < whole < 360


def test_paths_and_names_that_are_no_utf8_survive(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"F")
    source = listed(tmp_path, b"\xff.jpg b\xe9\na.jpg b\xc3\n")
    assert contents(source) == [(1, b"F"), (0, b"A")]
    assert source.identities is not None
    assert [os.fsencode(name) for name in source.identities] == [b"b\xc3", b"b\xe9"]
    with pytest.raises(ValueError, match=r"line 2: the label b'.*ff\.0' is no number"):
        listed(tmp_path, b"a.jpg 1\na.jpg \xff.0\n")


def test_opening_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/task"))
    source = listed(tmp_path, "a.jpg\tzoe\nb c.jpg\tann b\n")
    assert len(source) == 2
    assert len(os.listdir("/proc/self/task")) <= before
