import os
import pickle

import pytest

from data_pipeline.files.packed_texts import PackedTexts


def test_texts_come_back_in_their_order() -> None:
    texts = PackedTexts.of([b"a", b"", b"\xc3\xa9t\xc3\xa9", b"last"])
    assert list(texts) == ["a", "", "été", "last"]
    assert (len(texts), texts[-1], texts[1:3]) == (4, "last", ["", "été"])
    assert list(pickle.loads(pickle.dumps(texts))) == list(texts)


def test_names_that_are_no_utf8_still_open_their_file() -> None:
    assert os.fsencode(PackedTexts.of([b"\xff.jpg"])[0]) == b"\xff.jpg"


@pytest.mark.parametrize("place", [2, -3])
def test_a_place_outside_is_an_error(place: int) -> None:
    with pytest.raises(IndexError, match="of 2"):
        PackedTexts.of([b"a", b"b"])[place]


def test_no_text_at_all_is_an_empty_row() -> None:
    assert list(PackedTexts.of([])) == []
