"""One picture is known again in another size and encoding, and told from others, of the same person too."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from data_pipeline.checking.same_picture import is_same_picture
from data_pipeline.synthetic.people import identity_image

SIZE = 64


def picture(identity: int, index: int, *, size: int = SIZE, quality: int | None = None) -> bytes:
    content = io.BytesIO()
    image = Image.fromarray(identity_image(identity, index, size=SIZE)).resize((size, size))
    image.save(content, "png") if quality is None else image.save(content, "jpeg", quality=quality)
    return content.getvalue()


@pytest.mark.parametrize("identity", range(8))
def test_a_picture_is_known_again(identity: int) -> None:
    original = picture(identity, 0)
    for other in (original, picture(identity, 0, quality=50), picture(identity, 0, size=SIZE // 2, quality=90)):
        assert is_same_picture(original, other)


@pytest.mark.parametrize("identity", range(8))
def test_another_picture_is_another_also_of_the_same_person(identity: int) -> None:
    assert not is_same_picture(picture(identity, 0), picture(identity, 1))
    assert not is_same_picture(picture(identity, 0), picture(identity + 1, 0))


def test_what_does_not_decode_is_no_picture() -> None:
    assert not is_same_picture(picture(0, 0), picture(0, 0)[:60])
    assert not is_same_picture(b"", picture(0, 0))
