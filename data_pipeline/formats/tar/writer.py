"""Writes tar shards as WebDataset reads them."""

import operator
import tarfile
from pathlib import Path

from data_pipeline.files.whole_file import WholeFile, WholeOrNothing, refuse_existing
from data_pipeline.formats.tar.index import LARGEST_IMAGE_BYTES, MOST_LABEL_DIGITS
from data_pipeline.formats.tar.members import BLOCK_BYTES

END = bytes(2 * BLOCK_BYTES)
MAGICS = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png", b"BM": "bmp"}


class TarWriter(WholeOrNothing):
    """New shards `shard-000000.tar`, ... in a folder, each under its name from when it is whole on.

    A shard holds at most `images_per_shard` images and `bytes_per_shard` bytes. The members of an image are its bytes,
    `000000042.jpg`, and its label, `000000042.cls`: counted through all shards from `first_key` on, so that several
    writers can share the work. The same images make the same bytes, whenever and by whomever they are written.
    On an error inside the `with` block all that this writer made is removed; a kill leaves whole shards.
    Raises FileExistsError rather than write over a shard.
    """

    def __init__(
        self,
        folder: Path,
        *,
        images_per_shard: int = 100_000,
        bytes_per_shard: int = 1 << 30,
        first_shard: int = 0,
        first_key: int = 0,
    ) -> None:
        if images_per_shard < 1 or bytes_per_shard < 1 or first_shard < 0 or first_key < 0:
            raise ValueError(
                f"shards of {images_per_shard} images and {bytes_per_shard} bytes, from shard {first_shard} and key "
                f"{first_key} on: expected at least 1 of each, and no negative number"
            )
        self._folder = Path(folder)
        self._images_per_shard, self._bytes_per_shard = images_per_shard, bytes_per_shard
        self._first_shard, self._first_key = first_shard, first_key
        self._key, self._first_of_shard = first_key, first_key
        self.shards: list[Path] = []
        self._shard: WholeFile | None = None
        refuse_existing(self._next_path())
        self._folder.mkdir(parents=True, exist_ok=True)

    def append(self, label: int, image: bytes) -> None:
        """Writes one encoded image of class `label`; ValueError unless it is a JPEG, PNG, WebP or BMP."""
        label = operator.index(label)
        if not 0 <= label < 10**MOST_LABEL_DIGITS:
            raise ValueError(f"label {label} of image {self._key}: expected 0 to {10**MOST_LABEL_DIGITS - 1}")
        stem = f"{self._key:09d}"
        entry = _entry(f"{stem}.{_extension(image, self._key)}", image) + _entry(f"{stem}.cls", b"%d" % label)
        if len(entry) + len(END) > self._bytes_per_shard:
            raise ValueError(
                f"image {self._key} fills {len(entry)} bytes of a tar, more than a shard of {self._bytes_per_shard} "
                "bytes has room for: allow larger shards"
            )
        if self._shard is not None and (
            self._key - self._first_of_shard == self._images_per_shard
            or self._shard.file.tell() + len(entry) + len(END) > self._bytes_per_shard
        ):
            self._finish_shard(self._shard)
        if self._shard is None:
            self._shard, self._first_of_shard = WholeFile(self._next_path(), replaces=False), self._key
        self._shard.file.write(entry)
        self._key += 1

    def close(self) -> None:
        """Completes the last shard; on any error removes all that was written."""
        try:
            if self._key == self._first_key:
                raise ValueError(f"{self._folder}: no image was appended; a shard needs at least one")
            if self._shard is not None:
                self._finish_shard(self._shard)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Removes what was written so far."""
        if self._shard is not None:
            self._shard.discard()
            self._shard = None
        while self.shards:
            self.shards.pop().unlink(missing_ok=True)

    def _next_path(self) -> Path:
        return self._folder / f"shard-{self._first_shard + len(self.shards):06d}.tar"

    def _finish_shard(self, shard: WholeFile) -> None:
        with shard as file:
            file.write(END)
        self._shard = None
        self.shards.append(shard.path)


def _extension(image: bytes, key: int) -> str:
    """What the content is, whatever it was called; ValueError for what `TarSource` would not take for an image."""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    extension = next((name for magic, name in MAGICS.items() if image.startswith(magic)), None)
    if extension is None or len(image) > LARGEST_IMAGE_BYTES:
        raise ValueError(
            f"image {key} ({len(image)} bytes, first {image[:4].hex()!r}) is no JPEG, PNG, WebP or BMP below 4 GiB: "
            "convert it"
        )
    return extension


def _entry(name: str, content: bytes) -> bytes:
    """A member as a tar holds it; `TarInfo` begins with time 0, no owner and mode 644."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK_BYTES)
