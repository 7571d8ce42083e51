from pathlib import Path

import numpy as np
import pytest
from encoded import BLOCKS, FORMATS, encoded
from PIL import Image

from data_pipeline.checking.contact_sheet import TILE_PIXELS, drawn_rows, sheet, strip
from data_pipeline.checking.inspection import Inspection, inspection
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter

JPEG = FORMATS["JPEG"][1]


def distinct(number: int) -> bytes:
    return encoded("PNG", Image.fromarray(np.roll(BLOCKS, number, 0) ^ np.uint8(number)))


def records(folder: Path, images: list[tuple[int, bytes]]) -> RecordSource:
    with RecordWriter(folder / "train.rec") as writer:
        for label, image in images:
            writer.append(label, image)
    return RecordSource(folder / "train.rec")


def faultless(folder: Path) -> RecordSource:
    return records(folder, [(number // 4, distinct(number)) for number in range(40)])


def test_a_set_is_counted(tmp_path: Path) -> None:
    found = inspection(records(tmp_path, [(0, distinct(0)), (0, distinct(1)), (1, JPEG), (1, distinct(2))]))
    assert (found.num_images, found.num_classes, found.num_identities, found.is_whole) == (4, 2, 2, True)
    assert found.images_per_identity.tolist() == [2, 2]
    assert found.formats == {"PNG": 3, "JPEG": 1}
    assert found.sizes == {(8, 6): 3, (32, 24): 1}
    assert found.num_bytes == len(JPEG) + sum(len(distinct(number)) for number in range(3))


def test_nothing_is_wrong_with_a_set_without_fault(tmp_path: Path) -> None:
    assert list(inspection(faultless(tmp_path)).findings()) == []


def only_finding(found: Inspection) -> str:
    (finding,) = found.findings()
    return finding


def test_labels_without_images_are_found(tmp_path: Path) -> None:
    images = [(label, distinct(2 * label + index)) for label in (0, 1, 4, 6) for index in range(2)]
    finding = only_finding(inspection(records(tmp_path, images)))
    assert finding.startswith("3 of the labels 0 to 6 have no image (the first: 2, 3, 5); the largest is that of ")
    assert finding.endswith("key 7. Training numbers the identities anew, 0 to 3, in the order of their labels")


def test_a_set_of_one_identity_is_found(tmp_path: Path) -> None:
    finding = only_finding(inspection(records(tmp_path, [(0, distinct(0)), (0, distinct(1))])))
    assert finding == "all images are of one identity: training tells identities apart, and needs two or more"


def test_identities_of_one_image_are_found(tmp_path: Path) -> None:
    images = [(0, distinct(0)), (0, distinct(1)), (1, distinct(2))]
    assert only_finding(inspection(records(tmp_path, images))).startswith("1 of 2 identities have a single image")


def test_duplicates_are_told_apart_by_whether_the_labels_agree(tmp_path: Path) -> None:
    images = [
        (0, distinct(0)),
        (0, distinct(0)),
        (1, distinct(1)),
        (1, distinct(2)),
        (2, distinct(1)),
        (2, distinct(3)),
    ]
    across, within = inspection(records(tmp_path, images)).findings()
    assert "1 of 6 images looked at occur again byte for byte in several identities" in across
    assert f"{tmp_path / 'train.rec'} key 3 = {tmp_path / 'train.rec'} key 5" in across
    assert "within one identity" in within


def test_damaged_images_are_counted_by_kind_and_one_is_shown(tmp_path: Path) -> None:
    images = [(0, distinct(0)), (0, JPEG[:-2]), (1, JPEG[:-9]), (1, encoded("GIF"))]
    finding = only_finding(inspection(records(tmp_path, images)))
    assert finding.startswith("3 of 4 images looked at cannot be used (2 truncated, 1 wrong format), such as ")
    assert "key 2: truncated: JPEG" in finding


def test_a_part_is_drawn_by_rule_and_stands_for_the_whole(tmp_path: Path) -> None:
    source = faultless(tmp_path)
    found, again = inspection(source, images=10, seed=1), inspection(source, images=10, seed=1)
    assert found.samples == again.samples
    assert len({each.sample for each in found.samples}) == 10
    assert found.samples != inspection(source, images=10, seed=2).samples
    assert not found.is_whole
    assert found.num_bytes == pytest.approx(inspection(source).num_bytes, rel=0.1)
    with_more = inspection(source, images=10, seed=1, always=[0, 1, 2])
    assert {each.sample for each in with_more.samples} == {each.sample for each in found.samples} | {0, 1, 2}
    with pytest.raises(ValueError, match="expected at least 1"):
        inspection(source, images=0)


def test_rows_are_identities_with_their_first_images(tmp_path: Path) -> None:
    source = faultless(tmp_path)
    rows = drawn_rows(source, identities=3, images=2)
    assert [row.label for row in rows] == sorted({row.label for row in rows})
    assert all(row.samples == [4 * row.label, 4 * row.label + 1] and row.num_images == 4 for row in rows)
    assert len(drawn_rows(source, identities=100)) == 10
    assert rows == drawn_rows(source, identities=3, images=2)


def test_a_strip_shows_each_image_and_a_cross_for_what_is_none(tmp_path: Path) -> None:
    red = encoded("PNG", Image.new("RGB", (10, 20), (255, 0, 0)))
    (row,) = drawn_rows(source := records(tmp_path, [(0, red), (0, JPEG[:-2])]))
    picture = strip(source, row)
    middle = TILE_PIXELS // 2
    assert picture.getpixel((middle, middle)) == (255, 0, 0)
    assert picture.getpixel((5, middle)) != (255, 0, 0), "a narrow image is fitted in, not stretched"
    assert picture.getpixel((picture.width - middle, middle)) == (198, 61, 61)
    whole = sheet([picture, picture], ["one", "two"])
    assert whole.width > picture.width
    assert whole.height > 2 * picture.height
