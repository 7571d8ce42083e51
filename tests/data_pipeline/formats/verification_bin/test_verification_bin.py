"""InsightFace's `.bin` sets: every way they were ever written, and whatever else a pickle can be, which is not run."""

import codecs
import contextlib
import os
import pickle
import pickletools
import random
import struct
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.formats.verification_bin import unpickler
from data_pipeline.formats.verification_bin.pair_identities import joined_labels
from data_pipeline.formats.verification_bin.source import BinSource
from data_pipeline.formats.verification_bin.writer import write_bin
from data_pipeline.source import Source

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00'\"\\\n\r\t\x1a\x80\xc3\xa9 \\x41"
IMAGES = [JPEG, b"\x89PNG\r\n\x1a\n" + bytes(range(256)), JPEG + b"\xff\xd9" * 200, b"'", b'"', b"one"]
IS_SAME = [True, False, True]


def written(folder: Path, content: bytes) -> Path:
    path = folder / "set.bin"
    path.write_bytes(content)
    return path


def contents(source: BinSource) -> list[bytes]:
    return [source.read(sample).tobytes() for sample in range(len(source))]


def check(path: Path) -> None:
    source = BinSource(path)
    assert contents(source) == IMAGES
    assert source.is_same.tolist() == IS_SAME
    assert source.is_same.dtype == np.bool_


# What Python 2 wrote: its strings have opcodes of their own, its booleans below protocol 2 are numbers.


def python_2_string(content: bytes, protocol: int) -> bytes:
    if protocol == 0:
        quoted = repr(content)[1:]  # Python 3 quotes bytes as Python 2 did
        return b"S" + quoted.encode() + b"\np0\n"
    short = len(content) < 256
    head = b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))
    return head + content + b"q\x07"


def python_2_set(protocol: int) -> bytes:
    booleans = {0: (b"I00\n", b"I01\n"), 1: (b"I00\n", b"I01\n"), 2: (b"\x89", b"\x88")}[protocol]
    flags = [booleans[same] for same in IS_SAME]
    strings = [python_2_string(image, protocol) for image in IMAGES]
    if protocol == 0:
        listed = [b"(lp1\n" + b"".join(item + b"a" for item in items) for items in (strings, flags)]
        return b"(" + b"".join(listed) + b"tp9\n."
    listed = [b"]q\x01(" + b"".join(items) + b"e" for items in (strings, flags)]
    return b"(" + b"".join(listed) + b"t." if protocol == 1 else b"\x80\x02" + b"".join(listed) + b"\x86q\x09."


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_sets_of_python_2_are_read(tmp_path: Path, protocol: int) -> None:
    content = python_2_set(protocol)
    assert pickle.loads(content, encoding="bytes") == (IMAGES, IS_SAME), "it is what it says it is"
    check(written(tmp_path, content))


def arrays(images: list[bytes]) -> list[Any]:
    return [np.frombuffer(image, np.uint8) for image in images]


FORMS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: (IMAGES, IS_SAME),
    "a list of tuples": lambda: [tuple(IMAGES), tuple(IS_SAME)],
    "arrays": lambda: (arrays(IMAGES), IS_SAME),
    "columns, as older OpenCV encodes": lambda: ([array.reshape(-1, 1) for array in arrays(IMAGES)], IS_SAME),
    "writable arrays": lambda: ([array.copy() for array in arrays(IMAGES)], IS_SAME),
    "numpy's booleans": lambda: (IMAGES, list(np.array(IS_SAME))),
    "numbers": lambda: (IMAGES, [int(same) for same in IS_SAME]),
    "an array of booleans": lambda: (arrays(IMAGES), np.array(IS_SAME)),
    "an array of bytes": lambda: (IMAGES, np.array(IS_SAME, np.uint8)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_sets_of_this_python_are_read_in_every_protocol(tmp_path: Path, protocol: int, form: str) -> None:
    content = pickle.dumps(FORMS[form](), protocol)
    check(written(tmp_path, content))
    check(written(tmp_path, pickletools.optimize(content)))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_arrays_are_read_by_either_name_of_numpys_modules(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps((arrays(IMAGES), np.array(IS_SAME)), protocol)
    now, other = (b"numpy._core", b"numpy.core") if b"numpy._core" in content else (b"numpy.core", b"numpy._core")
    renamed = content.replace(now + b".", other + b".")
    if protocol >= 4:  # names have a length before them, and frames one of all they hold
        for module in (b".multiarray", b".numeric"):
            before, after = (b"\x8c" + bytes([len(core + module)]) + other + module for core in (now, other))
            renamed = renamed.replace(before, after)
    assert other in renamed
    check(written(tmp_path, renamed))


def test_an_array_of_python_2_and_its_numpy_is_read(tmp_path: Path) -> None:
    """The strings within the array's state are Python 2's too."""

    def array(image: bytes) -> bytes:
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        return made + b"(K\x01K" + bytes([len(image)]) + b"\x85" + kind + b"\x89U" + bytes([len(image)]) + image + b"tb"

    content = b"\x80\x02](" + array(JPEG) + array(b"one") + b"e]\x88a\x86."
    found, flags = pickle.loads(content, encoding="latin1")
    assert ([image.tobytes() for image in found], flags) == ([JPEG, b"one"], [True])
    assert contents(BinSource(written(tmp_path, content))) == [JPEG, b"one"]


def test_an_image_that_stands_twice_in_the_list_is_kept_once_in_the_file(tmp_path: Path) -> None:
    images = [JPEG, JPEG, IMAGES[1], JPEG]
    for protocol in (0, 2, 5):
        assert contents(BinSource(written(tmp_path, pickle.dumps((images, [True, False]), protocol)))) == images


def test_what_is_written_is_read_back_and_by_pickle_too(tmp_path: Path) -> None:
    path = tmp_path / "set.bin"
    write_bin(path, iter(IMAGES), IS_SAME)
    check(path)
    assert pickle.loads(path.read_bytes(), encoding="bytes") == (IMAGES, IS_SAME)
    assert [file.name for file in tmp_path.iterdir()] == ["set.bin"]
    with pytest.raises(FileExistsError, match="is never overwritten"):
        write_bin(path, IMAGES, IS_SAME)


@pytest.mark.parametrize(
    ("images", "is_same", "said"),
    [
        (IMAGES[:5], IS_SAME, "5 images for 3 pairs"),
        (IMAGES, [True], "6 images for 1 pairs"),
        ([], [], "0 images for 0 pairs: expected two for each, and a pair at least"),
        ([JPEG, b""], [True], "image 1 has 0 bytes"),
    ],
)
def test_a_set_that_is_none_is_not_written(tmp_path: Path, images: list[bytes], is_same: list[bool], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        write_bin(tmp_path / "set.bin", images, is_same)
    assert list(tmp_path.iterdir()) == []


def test_a_set_is_a_source_whose_labels_are_derived_from_its_pairs(tmp_path: Path) -> None:
    path = tmp_path / "set.bin"
    write_bin(path, IMAGES, IS_SAME)
    source: Source = BinSource(path)
    assert source.labels.tolist() == [0, 0, 1, 2, 3, 3]
    assert (len(source), source.num_classes, source.label(5)) == (6, 4, 3)
    assert source.name(3) == f"{path} image 3 (pair 1)"


def test_images_of_one_person_share_a_label_through_any_number_of_pairs(tmp_path: Path) -> None:
    """Image 1 is paired with 2, and 2 with 3. A pair of two persons joins nobody."""
    path = tmp_path / "set.bin"
    write_bin(path, [b"4", b"1", b"1", b"2", b"3", b"2", b"5", b"5"], [False, True, True, False])
    source = BinSource(path)
    assert source.labels.tolist() == [0, 1, 1, 1, 1, 1, 2, 2]
    assert source.contradictions.tolist() == [3], "two persons, of whom there is one and the same picture"
    assert pickle.loads(pickle.dumps(source)).labels.tolist() == source.labels.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_components_are_those_that_a_walk_over_the_links_finds(seed: int) -> None:
    draw = random.Random(seed)
    links = [(draw.randrange(60), draw.randrange(60)) for _ in range(draw.randrange(60))]
    found = joined_labels(60, np.array(links, np.int64).reshape(-1, 2)).tolist()
    reached = [{image} for image in range(60)]
    for _ in range(60):
        for left, right in links:
            reached[left] |= reached[right]
            reached[right] |= reached[left]
    firsts = [min(each) for each in reached]
    assert found == [sorted(set(firsts)).index(first) for first in firsts]


def test_images_are_read_from_threads_and_by_a_pickled_source(tmp_path: Path) -> None:
    path = tmp_path / "set.bin"
    write_bin(path, IMAGES, IS_SAME)
    source = BinSource(path)
    order = [sample % 6 for sample in range(600)]
    with ThreadPoolExecutor(4) as pool:
        assert [image.tobytes() for image in pool.map(source.read, order)] == [IMAGES[sample] for sample in order]
    assert contents(pickle.loads(pickle.dumps(source))) == IMAGES


def test_images_are_held_once_and_nothing_besides(tmp_path: Path) -> None:
    path = tmp_path / "set.bin"
    write_bin(path, (bytes([1]) * (1 << 20) for _ in range(64)), [True] * 32)
    tracemalloc.start()
    source = BinSource(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(source) == 64
    assert peak < 68 << 20


class Harm:
    """Pickled, a call of `named` with `arguments`, made when it is unpickled: what a malicious file does."""

    def __init__(self, named: Callable[..., Any], *arguments: object) -> None:
        self.call = named, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["image", "flag", "set", "array"])
def test_a_file_that_names_a_command_is_refused_and_the_command_not_run(
    tmp_path: Path, protocol: int, place: str
) -> None:
    harm = Harm(os.system, f"touch {tmp_path}/harmed")
    sets: dict[str, object] = {
        "image": ([JPEG, harm], [True]),
        "flag": ([JPEG, JPEG], [harm]),
        "set": harm,
        "array": ([JPEG, Harm(np.frombuffer, harm)], [True]),
    }
    path = written(tmp_path, pickle.dumps(sets[place], protocol))
    said = r"byte \d+: it names '(posix.system|numpy.*frombuffer)', which is not data"
    with pytest.raises(ValueError, match=said):
        BinSource(path)
    assert not (tmp_path / "harmed").exists()
    with contextlib.suppress(TypeError):
        pickle.loads(path.read_bytes())
    assert (tmp_path / "harmed").exists(), "run, the file does what it says"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "byte 0: 1 bytes reach past its end at byte 0: the file was cut short"),
        (b"\x80\x03](B\x05", "reach past its end"),
        (b"\x80\x03](B\x05\x00\x00\x00abc", "byte 9: 5 bytes reach past its end at byte 12"),
        (b"\x8e" + b"\xff" * 8 + b"a.", "BINBYTES8 exceeds system's maximum size"),
        (b"T\xff\xff\xff\xffa.", "BINSTRING pickle has negative byte count"),
        (b"S'abc", "a line has no end"),
        (b"\xff\xd8\xff\xe0", r"byte 1: opcode b'\\xff' is no part of a pickle of bytes and numbers"),
        (b"\x80\x03.", "pop from empty list"),
        (b"NN.", "1 values are left over"),
        (b"(N.", "1 values are left over"),
        (b"N.N", "the pickle ends here, and 1 bytes follow"),
        (b"N.", "is a pickle of something else: expected a pickle of"),
        (b"K\x01Na.", "'int' object has no attribute 'append'"),
        (b"ae.", "pop from empty list"),
        (b"Ne.", "pop from empty list"),
        (b"N(Ne.", "'NoneType' object has no attribute 'append'"),
        (b"t.", "pop from empty list"),
        (b"h\x01.", "Memo value not found at index 1"),
        (b"gx\n.", "invalid literal for int"),
        (b"Ix\n.", "invalid literal for int"),
        (b"I" + b"1" * 5000 + b"\n.", "Exceeds the limit .* for integer string conversion"),
        (b"}.", r"opcode b'}' is no part"),
        (b"G@\t!\xfbTD-\x18.", "opcode b'G' is no part"),
        (b"(ios\nsystem\n.", "opcode b'i' is no part"),
        (b"cos\nsystem\n.", "byte 11: it names 'os.system', which is not data"),
        (b"c_codecs\nencode\n\x8c\x01aU\x04utf8\x86R.", "a text that is not encoded as latin1"),
        (b"c_codecs\nencode\n\x8c\x01a\x8c\x06base64\x86R.", "a text that is not encoded as latin1"),
        (b"c_codecs\nencode\nN\x85R.", "missing 1 required positional argument"),
        (b"c_codecs\nencode\n.", "is a pickle of something else"),
        (b"c_codecs\nencode\nC\x02ab.", "left over"),
        (b"c_codecs\nencode\nC\x02abR.", "arguments that are bytes"),
        (b"c__builtin__\nbytes\nK\xff\x85R.", "takes 0 positional arguments but 1 was given"),
        (b"NNR.", "arguments that are NoneType"),
        (b"N)R.", "'NoneType' object is not callable"),
        (b"NN\x85b.", "'NoneType' object has no attribute '__dict__'"),
        (b"cnumpy\ndtype\nN\x85b.", "missing 1 required positional argument"),
        (b"c_codecs\nencode\nN\x85b.", "'tuple' object has no attribute 'items'"),
        (b"cnumpy\ndtype\nU\x02O8\x85R.", "an array of 'O8'; expected one of bytes"),
        (b"cnumpy\nndarray\n)R(NNNNNtb.", "an array that is not made of a shape, a dtype and bytes"),
        (b"cnumpy.core.multiarray\nscalar\nNC\x01a\x86R.", "a number without its dtype"),
        (b"\x93.", "pop from empty list"),
        (b"\x97.", r"opcode b'\\x97' is no part"),
        (b"P0\n.", "opcode b'P' is no part"),
    ],
)  # fmt: skip
def test_what_is_no_set_is_refused_with_its_byte(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BinSource(written(tmp_path, content))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (([JPEG, JPEG], [True, False]), "holds 2 images and 2 booleans: expected two images a boolean"),
        (([], []), "holds 0 images and 0 booleans"),
        ((IMAGES, IS_SAME, None), "is a pickle of something else"),
        (([JPEG, None], [True]), "image 1 is of type NoneType"),
        (([JPEG, "text"], [True]), "image 1 is of type str"),
        (([JPEG, np.zeros(4, np.bool_)], [True]), "image 1 is of type ByteArray"),
        (([JPEG, np.zeros(4)], [True]), "an array of 'f8'; expected one of bytes"),
        (([JPEG, np.array([JPEG], object)], [True]), "is not data|an array of 'O8'"),
        (([JPEG, JPEG], [2]), "boolean 0 is 2"),
        (([JPEG, JPEG], [None]), "boolean 0 is NoneType"),
        (([JPEG, JPEG], [0.5]), "no part of a pickle"),
        (([JPEG, JPEG], True), "second part is of type bool"),
        (([JPEG, JPEG], np.array([7], np.uint8)), "boolean 0 is 7"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, protocol: int, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BinSource(written(tmp_path, pickle.dumps(value, protocol)))


def test_text_that_is_no_bytes_is_refused(tmp_path: Path) -> None:
    def encoded(text: str) -> Harm:
        return Harm(codecs.encode, text, "latin1")

    path = written(tmp_path, pickle.dumps(([encoded("ab"), encoded("c")], [True]), 2))
    assert contents(BinSource(path)) == [b"ab", b"c"]
    path = written(tmp_path, pickle.dumps(([encoded("ab"), encoded("€")], [True]), 2))
    with pytest.raises(ValueError, match=r"byte \d+: 'latin-1' codec can't encode"):
        BinSource(path)
    with pytest.raises(ValueError, match="byte 10: invalid escape sequence"):
        BinSource(written(tmp_path, b"((lS'a\\q'\naS'b'\na(lI01\nat."))


def test_images_outlive_a_change_of_their_file(tmp_path: Path) -> None:
    path = tmp_path / "set.bin"
    write_bin(path, IMAGES, IS_SAME)
    source = BinSource(path)
    os.truncate(path, 100)
    assert contents(source) == IMAGES


def test_a_missing_file_and_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.bin")
    for name in ("none.bin", "pipe.bin", "."):
        with pytest.raises(FileNotFoundError, match="is missing, or is no regular file"):
            BinSource(tmp_path / name)


def test_opcodes_without_end_are_refused_before_they_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpickler, "MOST_READS", 1000)
    for bomb in (b"]" * 2000, b"(" * 2000, b"N\x94" * 1000, b"]" + b"Na" * 1000):
        with pytest.raises(ValueError, match="more than 1,000 opcodes"):
            BinSource(written(tmp_path, bomb))


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "set.bin"
    path.touch()
    os.truncate(path, unpickler.MOST_FILE_BYTES + 1)
    with pytest.raises(ValueError, match=r"set\.bin has 4,294,967,297 bytes, more than 4,294,967,296"):
        BinSource(path)


HUGE = b"J\xff\xff\xff\x7f"  # BININT 2**31 - 1
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n"
ONE_BYTE = b"cnumpy\ndtype\nU\x02u1\x85R"


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x8e" + (1 << 40).to_bytes(8, "little") + b"a.",
        b"\x8d" + (1 << 40).to_bytes(8, "little") + b"a.",
        b"\x96" + (1 << 40).to_bytes(8, "little") + b"a.",
        b"\x95" + (1 << 40).to_bytes(8, "little") + b"B\xff\xff\xff\xffa.",
        b"\x8b\xff\xff\xff\x7fa.",
        b"Nr\xff\xff\xff\xff.",
        b"Np" + b"9" * 4000 + b"\n.",
        b"]" * 30_000 + b"a" * 29_999 + b".",
        b"N" + b"\x85" * 30_000 + b".",
        b"c__builtin__\nbytes\n" + HUGE + b"\x85R.",
        b"cnumpy\nndarray\n" + HUGE + b"\x85\x85R.",
        ARRAY + b"cnumpy\nndarray\n" + HUGE + b"\x85U\x01b\x87R(K\x01" + HUGE + b"\x85" + ONE_BYTE + b"\x89U\x01atb.",
        ARRAY + b")R(K\x01(\x8a\xff" + b"\x7f" * 255 + b"q\0" + b"h\0" * 30_000 + b"t" + ONE_BYTE + b"\x89U\x01atb.",
        b"](c_codecs\nencode\nq\x00X\x30\x75\x00\x00" + b"a" * 30_000 + b"\x8c\x06latin1\x86q\x01R"
        + b"h\x00h\x01R" * 3000 + b"e.",
        b"c_codecs\nencode\nB\x00\x00\x01\x00" + bytes(1 << 16) + b"R.",
        b"cnumpy\ndtype\nX\x00\x00\x01\x00" + b"|" * (1 << 16) + b"\x85R.",
    ],
)  # fmt: skip
def test_bombs_are_refused_in_the_memory_of_their_file(tmp_path: Path, bomb: bytes) -> None:
    path = written(tmp_path, bomb)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"set\.bin"):
        BinSource(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_mutated_files_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    """Files with changed, lost, doubled or added bytes, of every protocol."""
    generator = random.Random(0)
    seeds = [pickle.dumps(form(), protocol) for form in FORMS.values() for protocol in range(6)]
    seeds += [python_2_set(protocol) for protocol in (0, 1, 2)]
    refused = 0
    for turn in range(800):
        content = bytearray(seeds[turn % len(seeds)])
        for _ in range(generator.randint(1, 4)):
            at, end = sorted(generator.randrange(len(content) + 1) for _ in range(2))
            match generator.randrange(4):
                case 0 if at < len(content):
                    content[at] = generator.randrange(256)
                case 1:
                    del content[at : min(end, at + 8)]
                case 2:
                    content[at:at] = content[at : min(end, at + 16)]
                case 3:
                    content[at:at] = generator.randbytes(4)
        try:
            contents(BinSource(written(tmp_path, bytes(content))))
        except ValueError:
            refused += 1
    assert 250 < refused < 800
