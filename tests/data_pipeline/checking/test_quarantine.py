from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.checking.quarantine import Quarantined, QuarantineWriter, quarantined, quarantined_samples
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.sets.fingerprint import fingerprint
from data_pipeline.source import Source


class Named(Source):
    """Images whose names are given, of class 0; an image that is None cannot be read."""

    def __init__(self, images: list[bytes | None], names: list[str]) -> None:
        self.images, self.names, self.labels = images, names, np.zeros(len(images), np.int64)

    def read(self, sample: int) -> NDArray[np.uint8]:
        content = self.images[sample]
        if content is None:
            raise FileNotFoundError("it vanished")
        return np.frombuffer(content, np.uint8)

    def name(self, sample: int) -> str:
        return self.names[sample]


def records(folder: Path, images: list[bytes]) -> RecordSource:
    folder.mkdir()
    with RecordWriter(folder / "train.rec") as writer:
        for image in images:
            writer.append(0, image)
    return RecordSource(folder / "train.rec")


def some_images(count: int = 100) -> list[bytes]:
    return [f"image {number}".encode() for number in range(count)]


@pytest.fixture
def source(tmp_path: Path) -> RecordSource:
    return records(tmp_path / "set", some_images())


def written(path: Path, source: RecordSource | Named, lines: dict[int, str]) -> Path:
    with QuarantineWriter(path, source) as writer:
        for sample, reason in lines.items():
            writer.append(sample, reason)
    return path


def test_what_is_written_is_read_back(tmp_path: Path, source: RecordSource) -> None:
    path = written(tmp_path / "q.tsv", source, {3: "truncated: JPEG", 70: "empty: zero bytes"})
    rec = tmp_path / "set" / "train.rec"
    assert list(quarantined(path, source)) == [
        Quarantined(3, f"{rec} key 4", "truncated: JPEG"),
        Quarantined(70, f"{rec} key 71", "empty: zero bytes"),
    ]
    samples = quarantined_samples(path, source)
    assert samples.dtype == np.int64
    assert samples.tolist() == [3, 70]


def test_a_set_without_fault_has_a_list_without_lines(tmp_path: Path, source: RecordSource) -> None:
    path = written(tmp_path / "q.tsv", source, {})
    assert quarantined_samples(path, source).shape == (0,)
    assert path.read_text().splitlines()[1:] == ["sample\tname\treason", "# 0 listed"]


def test_names_that_would_break_a_line_do_not(tmp_path: Path) -> None:
    names = ["tab\there", "line\nbreak", "Ärger \u2028 ja", "raw \udcff byte"]
    source = Named([b"x"] * 4, names)
    path = written(tmp_path / "q.tsv", source, dict.fromkeys(range(4), "a\treason\r\nof two lines"))
    lines = list(quarantined(path, source))
    assert [line.name for line in lines] == ["tab\\x09here", "line\\x0abreak", "Ärger \\x2028 ja", "raw \udcff byte"]
    assert {line.reason for line in lines} == {"a\\x09reason\\x0d\\x0aof two lines"}


def test_an_image_that_vanished_is_listed_by_its_name(tmp_path: Path) -> None:
    source = Named([b"x", None], ["a", "b"])
    path = written(tmp_path / "q.tsv", source, {1: "cannot be read: it vanished"})
    assert next(quarantined(path, source)).name == "b"


def test_a_list_of_another_set_is_refused(tmp_path: Path, source: RecordSource) -> None:
    path = written(tmp_path / "q.tsv", source, {3: "truncated: JPEG"})
    fewer = records(tmp_path / "fewer", some_images(99))
    with pytest.raises(ValueError, match=r"q\.tsv was made for 100 images of .* this set has 99 .* another set"):
        quarantined_samples(path, fewer)
    turned = records(tmp_path / "turned", some_images()[::-1])
    with pytest.raises(ValueError, match="another set"):
        quarantined_samples(path, turned)
    again = records(tmp_path / "again", some_images())
    assert quarantined_samples(path, again).tolist() == [3], "the same images elsewhere are the same set"


def test_fingerprints_differ_where_one_probed_byte_does() -> None:
    images: list[bytes | None] = list(some_images(64))
    before = fingerprint(Named(images, []))
    for sample in range(64):
        other = [*images[:sample], None, *images[sample + 1 :]]
        assert fingerprint(Named(other, [])) != before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("# partial-fc", "# another", "begins with '# another quarantine"),
        ("sample\tname\treason", "sample,name,reason", "line 2: found 'sample,name,reason'"),
        ("# 2 listed\n", "", "it was cut short; verify the set again"),
        ("# 2 listed", "70\tagain\twrong", "line 5: found '70"),
        ("# 2 listed", "100\tname\twrong", "line 5: found '100.*above 70 and below 100"),
        ("# 2 listed", "80\tname", "line 5: found '80"),
        ("# 2 listed", "# 2 listed\n80\tname\twrong", "line 6: found '80"),
        ("3\t", "-3\t", "line 3: found '-3"),
        ("3\t", "3.5\t", "line 3: found '3.5"),
    ],
)
def test_a_list_that_was_damaged_is_refused(
    tmp_path: Path, source: RecordSource, old: str, new: str, said: str
) -> None:
    path = written(tmp_path / "q.tsv", source, {3: "truncated: JPEG", 70: "empty: zero bytes"})
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=said):
        quarantined_samples(path, source)


def test_a_person_may_edit_the_list(tmp_path: Path, source: RecordSource) -> None:
    path = written(tmp_path / "q.tsv", source, {3: "truncated: JPEG", 70: "empty: zero bytes"})
    lines = path.read_text().splitlines()
    lines[2:4] = ["50\t\tI do not like it", lines[3]]
    path.write_text("\r\n".join(lines) + "\r\n", newline="")
    assert quarantined_samples(path, source).tolist() == [50, 70]


@pytest.mark.parametrize(("sample", "reason"), [(3, "again"), (2, "below"), (100, "none such"), (-1, "none"), (4, "")])
def test_lines_come_in_order_and_say_why(tmp_path: Path, source: RecordSource, sample: int, reason: str) -> None:
    with QuarantineWriter(tmp_path / "q.tsv", source) as writer:
        writer.append(3, "truncated: JPEG")
        with pytest.raises(ValueError, match="expected"):
            writer.append(sample, reason)


def test_a_list_appears_whole_or_not_at_all(tmp_path: Path, source: RecordSource) -> None:
    before = written(tmp_path / "q.tsv", source, {3: "truncated: JPEG"}).read_text()

    def interrupted() -> None:
        with QuarantineWriter(tmp_path / "q.tsv", source) as writer:
            writer.append(5, "truncated: JPEG")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "q.tsv").read_text() == before
    written(tmp_path / "q.tsv", source, {8: "empty: zero bytes"})
    assert quarantined_samples(tmp_path / "q.tsv", source).tolist() == [8], "a new list replaces the old one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.tsv", "set"]


def test_nothing_but_a_list_is_ever_replaced(tmp_path: Path, source: RecordSource) -> None:
    rec = tmp_path / "set" / "train.rec"
    before = rec.read_bytes()
    with pytest.raises(FileExistsError, match=r"train\.rec exists and is no quarantine list"):
        QuarantineWriter(rec, source)
    assert rec.read_bytes() == before
