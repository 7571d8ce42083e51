"""IJB-B and IJB-C: a backbone measured on their templates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from data_pipeline.aligning.folder import landmarked_files
from data_pipeline.aligning.source import AlignedSource
from launch.config.run import Config
from launch.evaluation.embeddings import Embeddings, embeddings
from launch.evaluation.held_out import HeldOut
from launch.protocols.ijb_files import Faces, IjbFolder, ijb_folder, pair_chunks, read_faces, read_subjects
from launch.writing import write_text
from partial_fc import World
from partial_fc.functional.rates import check_unit_rows
from partial_fc.functional.templates import Templates, pooled_templates
from partial_fc.protocols.templates import (
    Identification,
    PairChunk,
    Verification,
    identify,
    mean_of_galleries,
    verify_templates,
)

MEAN, JOINT = "mean", "joint"


class Ijb(NamedTuple):
    """One of the sets, opened: its lists, its faces, and what to embed."""

    folder: IjbFolder
    faces: Faces
    held_out: HeldOut
    galleries: dict[str, dict[int, int]]
    probes: dict[int, int]


@dataclass(frozen=True)
class Pooling:
    """How a template is made of its faces: what an embedding weighs by, and whether mirror images are added."""

    flip: bool
    norm_weight: bool
    detector_score: bool


@dataclass(frozen=True)
class IjbEvaluation:
    """The measures of both protocols; each is left out where its lists are not there."""

    pooling: Pooling
    counts: dict[str, int]
    verification: Verification | None
    identification: dict[str, Identification]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers."""
        return {
            "pooling": vars(self.pooling),
            "counts": self.counts,
            "verification": None if self.verification is None else self.verification.to_json(),
            "identification": {name: found.to_json() for name, found in self.identification.items()},
        }


def open_ijb(root: Path, side: int) -> Ijb:
    """The set in ``root``, its faces aligned to ``side`` pixels. ValueError for lists that do not fit each other."""
    folder = ijb_folder(root)
    faces = read_faces(folder)
    source = AlignedSource(landmarked_files(folder.pictures, faces.landmarks), faces.landmarks.points, side)
    galleries = {name: read_subjects(path) for name, path in folder.galleries.items()}
    probes = read_subjects(folder.probes) if galleries else {}
    if not galleries and not folder.pairs.exists():
        raise FileNotFoundError(f"{folder.pairs} is missing, and so are the galleries: there is nothing to compare")
    return Ijb(folder, faces, HeldOut(source, np.empty(0, np.int64)), galleries, probes)


def evaluate_ijb(
    config: Config, backbone: nn.Module, ijb: Ijb, pooling: Pooling, world: World, device: torch.device, *, path: Path
) -> IjbEvaluation:
    """The measures of ``backbone`` by both protocols; rank 0 writes them to ``path``.

    Each rank embeds its share of the faces and scores its share of the pairs and probes. ValueError where the list has
    no score and one is asked for, and for a template none of whose pictures can be used.
    """
    if pooling.detector_score and ijb.faces.landmarks.scores is None:
        raise ValueError(f"{ijb.folder.meta('name_5pts_score.txt')} has no scores: give --no-detector-score")
    found = embeddings(config, backbone, ijb.held_out, world, device, flip=pooling.flip)
    check_unit_rows(found.unit_ND)
    templates = _templates(ijb.faces, found, pooling)
    evaluation = IjbEvaluation(
        pooling,
        {"images": len(found.unit_ND), "templates": len(templates.template_T)},
        verify_templates(templates.unit_TD, _chunks(ijb, templates, world), world)
        if ijb.folder.pairs.exists()
        else None,
        _identification(ijb, templates, world),
    )
    if world.rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(evaluation.to_json(), indent=1) + "\n")
    return evaluation


def _templates(faces: Faces, found: Embeddings, pooling: Pooling) -> Templates:
    """Pooled on the CPU, where sums have one order: ranks must have the same templates to the last bit."""
    samples, norm_N = found.samples_N.cpu().numpy(), found.norm_N.cpu()
    template_N, medium_N = (torch.from_numpy(each[samples]) for each in faces[1:])
    weight_N = norm_N if pooling.norm_weight else torch.ones_like(norm_N)
    if pooling.detector_score and faces.landmarks.scores is not None:
        weight_N = weight_N * torch.from_numpy(faces.landmarks.scores[samples]).to(weight_N)
    pooled = pooled_templates(found.unit_ND.cpu(), template_N, medium_N, weight_N)
    return Templates(*(each.to(found.unit_ND.device) for each in pooled))


def _chunks(ijb: Ijb, templates: Templates, world: World) -> Iterator[PairChunk]:
    for first, second, same in pair_chunks(ijb.folder.pairs, world.rank, world.size):
        yield _rows(templates, first), _rows(templates, second), torch.from_numpy(same).to(templates.unit_TD.device)


def _rows(templates: Templates, wanted: Any) -> Tensor:
    return templates.rows_of(torch.from_numpy(np.array(wanted, np.int64)).to(templates.template_T.device))


def _identification(ijb: Ijb, templates: Templates, world: World) -> dict[str, Identification]:
    """Each gallery, their mean, and all of them as one gallery, of which the field reports the closed set."""
    probe_rows, probe_subjects = _listed(templates, ijb.probes)
    unit_TD = templates.unit_TD

    def searched(gallery: dict[int, int]) -> Identification:
        rows, subjects = _listed(templates, gallery)
        return identify(unit_TD[probe_rows], unit_TD[rows], probe_subjects, subjects, world)

    found = {name: searched(gallery) for name, gallery in ijb.galleries.items()}
    joint = {template: subject for gallery in ijb.galleries.values() for template, subject in gallery.items()}
    return {**found, MEAN: mean_of_galleries(found), JOINT: searched(joint)} if found else {}


def _listed(templates: Templates, subjects: dict[int, int]) -> tuple[Tensor, Tensor]:
    rows = _rows(templates, list(subjects))
    return rows, torch.tensor(list(subjects.values()), device=rows.device)
