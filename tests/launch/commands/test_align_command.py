"""``partial-fc align`` as users meet it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.aligning.warp import aligned_face
from launch import cli

POINTS = np.array([[60.0, 70], [110, 72], [88, 100], [66, 130], [108, 128]])
NUMBERS = " ".join(f"{number:g}" for number in POINTS.flatten())


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures in folders, a landmark file that names them and one that is missing."""
    random = np.random.default_rng(0)
    for name in ("ann/1.png", "bob/2.jpeg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        Image.fromarray(random.integers(0, 256, (200, 160, 3), dtype=np.uint8)).save(tmp_path / "in" / name)
    (tmp_path / "two.txt").write_text(f"ann/1.png {NUMBERS} 0.9\nbob/2.jpeg {NUMBERS} 0.8\n")
    return tmp_path


def test_a_folder_is_aligned_and_goes_on_where_it_was(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["align", str(pictures / "in"), str(pictures / "two.txt"), "--out", str(pictures / "out")]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"{pictures / 'out'}  the aligned faces\n"
    assert sorted(path.name for path in (pictures / "out").rglob("*.*")) == ["1.png", "2.png"]
    with Image.open(pictures / "in" / "bob" / "2.jpeg") as image, Image.open(pictures / "out/bob/2.png") as face:
        assert np.array_equal(np.asarray(face), aligned_face(np.asarray(image), POINTS))
    kept = (pictures / "out" / "ann" / "1.png").stat().st_mtime_ns
    (pictures / "out" / "bob" / "2.png").unlink()
    assert cli.main(words) == 0
    assert (pictures / "out" / "bob" / "2.png").exists()
    assert (pictures / "out" / "ann" / "1.png").stat().st_mtime_ns == kept
    assert cli.main([*words[:3], "--out", str(pictures / "small"), "--size", "56", "--quality", "90"]) == 0
    with Image.open(pictures / "small" / "ann" / "1.jpg") as face:
        assert face.size == (56, 56)


def test_a_missing_picture_is_named_and_the_others_are_written(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (pictures / "two.txt").open("a") as file:
        file.write(f"cid/3.png {NUMBERS} 0.7\n")
    assert cli.main(["align", str(pictures / "in"), str(pictures / "two.txt"), "--out", str(pictures / "out")]) == 3
    printed = capsys.readouterr().out
    assert f"{pictures / 'in'}/cid/3.png is missing\n" in printed
    assert "without 1 that cannot be aligned" in printed
    assert len(list((pictures / "out").rglob("*.png"))) == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../x.png", "names '../x.png': expected a path within"),
        ("/x.png", "names '/x.png': expected a path within"),
        ("ann/1.jpg", "names both 'ann/1.png' and 'ann/1.jpg', which would be one face: ann/1.png"),
    ],
)
def test_names_that_no_face_can_have_are_refused_before_any_is_written(
    pictures: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (pictures / "two.txt").open("a") as file:
        file.write(f"{name} {NUMBERS} 0.7\n")
    assert cli.main(["align", str(pictures / "in"), str(pictures / "two.txt"), "--out", str(pictures / "out")]) == 3
    assert said in capsys.readouterr().err
    assert not (pictures / "out").exists()
    assert cli.main(["align", str(pictures / "in"), str(pictures / "two.txt"), "--out", str(pictures / "in/x")]) == 2
