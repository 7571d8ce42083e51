"""Cosines of a trained network with all of its class rows: what `near.py` draws beside those of random rows.

    partial-fc train configs/omniglot.yaml --nproc 1 --set data.image_size=20 --set backbone.width=8 \
        --set backbone.compile=false --set schedule.stages=null --set schedule.epochs=3 --set run_dir=runs/concepts
    python -m benchmarks.concepts --run runs/concepts

Legend: `N` images; `C` classes; `D` dimensions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.results import read_json, write_json
from launch import assembly
from launch.assembly.run_folder import RunFolder
from launch.config.loading import load_config
from partial_fc import World
from partial_fc.checkpoint.layout import latest_checkpoint
from partial_fc.functional.cosine import unit_rows
from partial_fc.functional.look import least_int8_products, least_product, quantised, reaching
from partial_fc.functional.p2sgrad import chance_cosine

KEPT = Path(__file__).with_name("trained.json")
LOWEST, HIGHEST, BINS = -1.0, 1.0, 200


@dataclass(frozen=True)
class Looked:
    """`N` images against `C` classes: how often each cosine occurs, and what the look at all classes finds.

    `others` are the cosines with the classes but the target's, by bins of a hundredth from -1 to 1. `candidates` are
    the pairs that reach the bound, by the dtype of the look; `near_pairs` those beyond chance but the targets;
    `moved_rows` the classes that have a slope or are targets.
    """

    images: int
    num_classes: int
    embedding_dim: int
    others: list[int]
    targets: list[int]
    candidates: dict[str, int]
    near_pairs: int
    moved_rows: int

    @property
    def chance(self) -> float:
        """The cosine τ beyond which another class has a slope."""
        return chance_cosine(self.num_classes, self.embedding_dim)


def looked(unit_ND: Tensor, rows_CD: Tensor, labels_N: Tensor) -> Looked:
    """What one look at all classes finds; unit rows in float32."""
    above = chance_cosine(*rows_CD.shape)
    cosines_NC = unit_ND.double() @ rows_CD.double().T
    is_target_NC = torch.zeros_like(cosines_NC, dtype=torch.bool).scatter(1, labels_N[:, None], True)
    is_near_NC = (cosines_NC > above) & ~is_target_NC
    return Looked(
        images=len(unit_ND),
        num_classes=len(rows_CD),
        embedding_dim=rows_CD.shape[1],
        others=_counts(cosines_NC[~is_target_NC]),
        targets=_counts(cosines_NC[is_target_NC]),
        candidates={"bfloat16": len(by_bfloat16(unit_ND, rows_CD)[1]), "int8": len(by_int8(unit_ND, rows_CD)[1])},
        near_pairs=int(is_near_NC.sum()),
        moved_rows=int((is_near_NC | is_target_NC).any(dim=0).sum()),
    )


def by_bfloat16(unit_ND: Tensor, rows_CD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The look in bfloat16: products `(C, N)`, the candidates' images, and the bounds `(C,)` that products reach.

    Factors and result are rounded to bfloat16; the sum between them is made in float64, the same on every machine.
    """
    product_CN = (rows_CD.bfloat16().double() @ unit_ND.bfloat16().double().T).bfloat16()
    least = least_product(chance_cosine(*rows_CD.shape), rows_CD.shape[1], torch.bfloat16)
    least_C = product_CN.new_full((len(product_CN),), least)
    return product_CN.double(), reaching(product_CN, least_C)[1], least_C.double()


def by_int8(unit_ND: Tensor, rows_CD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The look in int8: products `(C, N)` as cosines, the candidates' images, and the bounds `(C,)` as cosines."""
    batch, rows = quantised(unit_ND, have_one_step=True), quantised(rows_CD)
    integers_CN = (rows.integers.double() @ batch.integers.double().T).to(torch.int32)  # exact
    least_C = least_int8_products(chance_cosine(*rows_CD.shape), batch, rows)
    steps_C = rows.steps * batch.steps[0]
    return integers_CN * steps_C.unsqueeze(1), reaching(integers_CN, least_C)[1], least_C * steps_C


@torch.no_grad()
def measure(run: Path) -> Looked:
    """Of the last checkpoint of `run`, a run on one rank: its class rows, and a batch of training images."""
    config = load_config(RunFolder(run).config)
    source = assembly.open_training_data(config.data, config.seed)
    backbone = assembly.backbone(config.backbone, config.data.image_size)
    checkpoint = latest_checkpoint(RunFolder(run).checkpoints)
    parts = assembly.run(config, source, backbone, World(), torch.device("cpu"), facts={}, resumed=checkpoint)
    batch = next(parts.batches)
    parts.backbone.eval()
    unit_ND = unit_rows(parts.backbone(batch.images).float())[0]
    return looked(unit_ND, unit_rows(parts.head.weight.float())[0], batch.labels)


def keep(found: Looked) -> None:
    """Write it where :func:`kept` finds it."""
    write_json(asdict(found), KEPT)


def kept() -> Looked:
    """What was measured of a trained network."""
    return read_json(KEPT, Looked)


def _counts(cosines: Tensor) -> list[int]:
    return torch.histc(cosines, BINS, LOWEST, HIGHEST).long().tolist()
