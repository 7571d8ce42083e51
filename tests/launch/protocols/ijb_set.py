"""A small set in the layout of IJB-C: pictures, landmarks and lists, written from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tiny
from PIL import Image

from data_pipeline.aligning.similarity import TEMPLATE
from data_pipeline.synthetic.people import identity_image

SUBJECTS, EACH = 12, 3
SIDE = 60


class Lists(NamedTuple):
    """What the files say: per picture (template, medium, score), pairs, and the subject of every template."""

    faces: list[tuple[int, int, float]]
    pairs: list[tuple[int, int, int]]
    subjects: dict[int, int]
    galleries: dict[str, list[int]]
    probes: list[int]


def write_ijb(root: Path, name: str = "ijbc") -> Lists:
    """12 subjects of three templates each: template 10 s + k of subject s has k + 1 pictures or frames of 1 + k // 2
    media; the first is in a gallery, G1 the first five subjects' and G2 the next five, the others are probes."""
    random = np.random.default_rng(0)
    (root / "meta").mkdir(parents=True)
    (root / "loose_crop").mkdir()
    faces, points, subjects = list[tuple[int, int, float]](), list[str](), dict[int, int]()
    for subject in range(SUBJECTS):
        for k in range(EACH):
            subjects[10 * subject + k] = subject + 100
            for frame in range(k + 1):
                number = len(faces) + 1
                paste(root / "loose_crop" / f"{number}.png", subject, 5 * k + frame)
                landmarks = TEMPLATE * tiny.SIZE / 112 + random.uniform(10, 14, 2) + random.normal(0, 0.4, (5, 2))
                faces.append((10 * subject + k, 1000 * subject + frame // 2, round(random.uniform(0.3, 1), 3)))
                points.append(f"{number}.png {' '.join(f'{at:.3f}' for at in landmarks.flatten())} {faces[-1][2]}")
    templates = sorted(subjects)
    chosen = [(first, second) for first in templates for second in templates if first < second]
    pairs = [(first, second, int(subjects[first] == subjects[second])) for first, second in chosen]
    firsts = [template for template in templates if template % 10 == 0]
    lists = Lists(faces, pairs, subjects, {"G1": firsts[:5], "G2": firsts[5:10]}, [t for t in templates if t % 10])
    meta = root / "meta" / name
    lines = [f"{at}.png {template} {medium}" for at, (template, medium, _) in enumerate(faces, start=1)]
    Path(f"{meta}_face_tid_mid.txt").write_text("\n".join(lines) + "\n")
    Path(f"{meta}_name_5pts_score.txt").write_text("\n".join(points) + "\n")
    Path(f"{meta}_template_pair_label.txt").write_text("".join(f"{a} {b} {same}\n" for a, b, same in pairs))
    for rest, wanted in {
        **{f"gallery_{g}": lists.galleries[g] for g in lists.galleries},
        "probe_mixed": lists.probes,
    }.items():
        rows = [f"{template},{subjects[template]},img/{template}.png" for template in wanted for _ in range(2)]
        Path(f"{meta}_1N_{rest}.csv").write_text("TEMPLATE_ID,SUBJECT_ID,FILENAME\n" + "\n".join(rows) + "\n")
    return lists


def paste(path: Path, person: int, index: int) -> None:
    """A picture of 60 pixels with a drawn face of 24 in it."""
    canvas = np.full((SIDE, SIDE, 3), 90, np.uint8)
    canvas[12 : 12 + tiny.SIZE, 12 : 12 + tiny.SIZE] = identity_image(person, index, size=tiny.SIZE)
    Image.fromarray(canvas).save(path)
