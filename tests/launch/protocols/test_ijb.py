"""IJB's files, and a backbone measured on them as a plain loop does it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from ijb_set import Lists, write_ijb
from PIL import Image
from torch import Tensor

from launch import evaluate
from launch.config.loading import load_config
from launch.protocols import ijb_files
from launch.protocols.ijb import open_ijb
from launch.protocols.ijb_files import ijb_folder, pair_chunks, read_faces, read_subjects


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lists]:
    """A run with random weights, and a small set beside it."""
    folder = tmp_path_factory.mktemp("ijb")
    torch.manual_seed(3)
    config = load_config(tiny.write_config(folder / "config.yaml", tiny.tree(folder, folder / "run", data={})))
    (folder / "run" / "checkpoints").mkdir(parents=True)
    (folder / "run" / "config.yaml").write_text((folder / "config.yaml").read_text())
    torch.save(tiny.backbone(config).state_dict(), folder / "weights.pt")
    return folder, write_ijb(folder / "IJBC")


def measured(folder: Path, out: Path, *words: str) -> dict[str, Any]:
    words = (str(folder / "run"), "--ijb", str(folder / "IJBC"), "--weights", str(folder / "weights.pt"), *words)
    assert evaluate.main([*words, "--out", str(out)]) == 0
    found: dict[str, Any] = json.loads((out / "evaluation-ijbc.json").read_text())
    return found


def plain_rows(folder: Path, *, flip: bool) -> list[Tensor]:
    """The network's answer to each aligned face, one at a time, as long as it comes."""
    backbone = tiny.backbone(load_config(folder / "config.yaml"), folder / "weights.pt").eval()
    source, rows = open_ijb(folder / "IJBC", tiny.SIZE).held_out.source, []
    for sample in range(len(source)):
        with Image.open(io.BytesIO(source.read(sample).tobytes())) as image:
            pixels = torch.tensor(np.array(image), dtype=torch.float32).permute(2, 0, 1)[None]
        views = [pixels, pixels.flip(-1)] if flip else [pixels]
        with torch.no_grad():
            rows.append(torch.cat([backbone((view - 127.5) / 127.5) for view in views]).sum(0).double())
    return rows


def plain_templates(rows: list[Tensor], lists: Lists, *, norm: bool, score: bool) -> dict[int, Tensor]:
    found = {}
    for template in lists.subjects:
        media: dict[int, list[Tensor]] = {}
        for row, (of, medium, detector) in zip(rows, lists.faces, strict=True):
            if of == template:
                weight = (1.0 if norm else 1 / float(row.norm())) * (detector if score else 1.0)
                media.setdefault(medium, []).append(row * weight)
        total = torch.stack([torch.stack(frames).mean(0) for frames in media.values()]).sum(0)
        found[template] = total / total.norm()
    return found


@pytest.mark.parametrize(("flip", "norm", "score"), [(True, True, True), (False, False, True), (False, True, False)])
def test_both_protocols_have_the_figures_of_a_plain_loop(
    run: tuple[Path, Lists], tmp_path: Path, flip: bool, norm: bool, score: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, lists = run
    options = {"--flip": flip, "--no-norm-weight": not norm, "--no-detector-score": not score}
    found = measured(folder, tmp_path, *(word for word, is_given in options.items() if is_given))
    assert found["pooling"] == {"flip": flip, "norm_weight": norm, "detector_score": score}
    assert found["counts"] == {"images": 72, "templates": 36}
    templates = plain_templates(plain_rows(folder, flip=flip), lists, norm=norm, score=score)

    def cosine(first: int, second: int) -> float:
        return float(templates[first] @ templates[second])

    one_to_one = found["verification"]
    genuine = sorted(cosine(first, second) for first, second, same in lists.pairs if same)
    impostor = sorted((cosine(first, second) for first, second, same in lists.pairs if not same), reverse=True)
    assert one_to_one["counts"] == {"templates": 36, "genuine_pairs": 36, "impostor_pairs": 594}
    for far, allowed in (("1e-1", 59), ("1e-2", 5)):
        expected = sum(each > impostor[allowed] + 1e-6 for each in genuine) / len(genuine)
        assert one_to_one["tar_at_far"][far] == pytest.approx(expected, abs=1e-9)
    galleries = {**lists.galleries, "joint": [*lists.galleries["G1"], *lists.galleries["G2"]]}
    for name, gallery in galleries.items():
        of_gallery = {lists.subjects[template]: template for template in gallery}
        ranks, strangers = [], 0
        for probe in lists.probes:
            scores = {subject: cosine(probe, template) for subject, template in of_gallery.items()}
            mate = scores.pop(lists.subjects[probe], None)
            strangers += mate is None
            if mate is not None:
                ranks.append(1 + sum(other >= mate for other in scores.values()))
        one = found["identification"][name]
        assert one["rank"]["1"] == pytest.approx(sum(rank == 1 for rank in ranks) / len(ranks))
        size = len(gallery)
        assert one["counts"] == {"gallery": size, "probes_with_mate": 2 * size, "probes_without": strangers}
        resolved = ["1e-1"] if strangers >= 10 else []
        assert list(one["tpir_at_fpir"]) == resolved, "14 strangers cannot resolve one in a hundred, nor 4 one in ten"
    mean = sum(found["identification"][name]["rank"]["1"] for name in lists.galleries) / 2
    assert found["identification"]["mean"]["rank"]["1"] == pytest.approx(mean)
    assert 0.1 < one_to_one["eer"] < 0.7, "figures that could be of anything would prove nothing"
    printed = " ".join(capsys.readouterr().out.split())
    assert "ijbc: 36 templates of 72 pictures, pooled with" in printed
    page = (tmp_path / "evaluation-ijbc.html").read_text()
    assert page.count("<svg") == 2
    assert f"{found['identification']['G1']['rank']['5']:.4f}" in page
    assert "1:N, mean: 10 templates, 20 probes with a mate, 28 without" in printed


@pytest.mark.processes
def test_several_ranks_find_the_figures_of_one(run: tuple[Path, Lists], tmp_path: Path) -> None:
    folder, _ = run
    words = [str(folder / "run"), "--ijb", str(folder / "IJBC"), "--weights", str(folder / "weights.pt")]
    small_blocks(*words, "--out", str(tmp_path / "one"))
    tiny.processes(2, small_blocks, *words, "--out", str(tmp_path / "two"))
    one, two = (json.loads((tmp_path / name / "evaluation-ijbc.json").read_text()) for name in ("one", "two"))
    assert one == two


def small_blocks(*words: str) -> None:
    """Batches and blocks so small that each rank has some of everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("launch.evaluation.embeddings.EMBED_BATCH", 9)
        patch.setattr(ijb_files, "BLOCK_BYTES", 1000)
        assert evaluate.main([*words]) == 0


def test_pairs_come_in_chunks_each_to_one_rank(run: tuple[Path, Lists], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, lists = run
    monkeypatch.setattr(ijb_files, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(ijb_files, "PAIRS_IN_CHUNK", 100)
    path = ijb_folder(folder / "IJBC").pairs
    for size in (1, 3):
        chunks = [chunk for rank in range(size) for chunk in pair_chunks(path, rank, size)]
        found = [pair for chunk in chunks for pair in zip(*(part.tolist() for part in chunk), strict=True)]
        assert len(chunks) > 2
        assert sorted(found) == [(first, second, bool(same)) for first, second, same in lists.pairs]


def test_a_missing_picture_is_left_out_and_a_template_without_any_is_named(
    run: tuple[Path, Lists], tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, lists = run
    write_ijb(tmp_path / "IJBC")
    two = [at for at, (template, _, _) in enumerate(lists.faces, start=1) if template == 1]
    words = [str(folder / "run"), "--ijb", str(tmp_path / "IJBC"), "--weights", str(folder / "weights.pt")]
    (tmp_path / "IJBC" / "loose_crop" / f"{two[0]}.png").unlink()
    assert evaluate.main([*words, "--out", str(tmp_path)]) == 0
    assert f"{two[0]}.png is missing" in caplog.text
    assert json.loads((tmp_path / "evaluation-ijbc.json").read_text())["counts"] == {"images": 71, "templates": 36}
    (tmp_path / "IJBC" / "loose_crop" / f"{two[1]}.png").write_bytes(b"no picture")
    assert evaluate.main([*words, "--out", str(tmp_path)]) == 3
    assert "template 1 has no picture that could be used (1 such templates)" in capsys.readouterr().err


def test_without_galleries_or_pairs_the_other_protocol_is_measured(run: tuple[Path, Lists], tmp_path: Path) -> None:
    folder, _ = run
    write_ijb(tmp_path / "IJBC", name="ijbb")
    words = [str(folder / "run"), "--ijb", str(tmp_path / "IJBC"), "--weights", str(folder / "weights.pt")]
    meta = tmp_path / "IJBC" / "meta"
    for gallery in ("G1", "G2"):
        (meta / f"ijbb_1N_gallery_{gallery}.csv").rename(meta / f"ijbb_1N_gallery_{gallery.replace('G', 'S')}.csv")
    (meta / "ijbb_template_pair_label.txt").unlink()
    assert evaluate.main([*words, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "evaluation-ijbb.json").read_text())
    assert (found["verification"], list(found["identification"])) == (None, ["S1", "S2", "mean", "joint"])
    for gallery in ("S1", "S2"):
        (meta / f"ijbb_1N_gallery_{gallery}.csv").unlink()
    with pytest.raises(FileNotFoundError, match="there is nothing to compare"):
        open_ijb(tmp_path / "IJBC", 24)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("face_tid_mid.txt", "1.png 0 0\n3.png 1 0\n", "line 2 names '3.png', where the list of landmarks has '2.png'"),
        ("face_tid_mid.txt", "1.png 0 0\n2.png 1 0\n", "names 2 pictures, the list of landmarks 72"),
        ("face_tid_mid.txt", "1.png 0 x\n", "face_tid_mid.txt: .*'x'"),
        ("1N_gallery_G1.csv", "TEMPLATE,SUBJECT\n1,2\n", "expected TEMPLATE_ID,SUBJECT_ID"),
        ("1N_gallery_G2.csv", "TEMPLATE_ID,SUBJECT_ID\n1,2\n1,3\n", "template 1 is of subject 2 and of subject 3"),
        ("1N_probe_mixed.csv", "TEMPLATE_ID,SUBJECT_ID\n1,2\n1\n", "1N_probe_mixed.csv: "),
        ("name_5pts_score.txt", "1.png 1 2\n", "line 1 has 3 fields"),
    ],
)
def test_lists_that_are_none_are_refused(tmp_path: Path, file: str, content: str, said: str) -> None:
    write_ijb(tmp_path)
    (tmp_path / "meta" / f"ijbc_{file}").write_text(content)
    with pytest.raises(ValueError, match=said):
        open_ijb(tmp_path, 24)


def test_pairs_of_which_it_is_not_said_whether_they_are_one_person_s_are_refused(tmp_path: Path) -> None:
    for content, said in (("1 2 1\n1 3 7\n", "says 7 of a pair"), ("1 2\n", "pairs.txt: "), ("1 2 a\n", "pairs.txt: ")):
        (tmp_path / "pairs.txt").write_text(content)
        with pytest.raises(ValueError, match=said):
            list(pair_chunks(tmp_path / "pairs.txt"))


def test_what_is_no_such_folder_and_options_that_exclude_each_other_are_refused(
    run: tuple[Path, Lists], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = run
    words = [str(folder / "run"), "--ijb", str(tmp_path)]
    assert evaluate.main(words) == 3
    assert "has 0 files called *_face_tid_mid.txt: expected one" in capsys.readouterr().err
    assert evaluate.main([*words, "--pairs", "lfw.bin"]) == 2
    assert "--ijb and --pairs exclude each other" in capsys.readouterr().err
    assert evaluate.main([*words[:1], "--no-norm-weight"]) == 2
    assert "--no-norm-weight is of the templates of --ijb FOLDER" in capsys.readouterr().err


def test_a_list_without_scores_needs_the_option_that_does_without(tmp_path: Path, run: tuple[Path, Lists]) -> None:
    folder, _ = run
    write_ijb(tmp_path / "IJBC")
    points = tmp_path / "IJBC" / "meta" / "ijbc_name_5pts_score.txt"
    points.write_text("".join(" ".join(line.split()[:-1]) + "\n" for line in points.read_text().splitlines()))
    words = [str(folder / "run"), "--ijb", str(tmp_path / "IJBC"), "--weights", str(folder / "weights.pt")]
    assert evaluate.main([*words, "--out", str(tmp_path)]) == 3
    assert evaluate.main([*words, "--out", str(tmp_path), "--no-detector-score"]) == 0


def test_subjects_are_read_by_template(run: tuple[Path, Lists]) -> None:
    folder, lists = run
    ijb = ijb_folder(folder / "IJBC")
    assert (ijb.name, list(ijb.galleries)) == ("ijbc", ["G1", "G2"])
    assert read_subjects(ijb.probes) == {template: lists.subjects[template] for template in lists.probes}
    faces = read_faces(ijb)
    assert list(zip(faces.templates.tolist(), faces.media.tolist(), strict=True)) == [each[:2] for each in lists.faces]
