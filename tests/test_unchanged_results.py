"""Losses, gradients, class rows and the order of samples are what they were when the file beside this was written.

A change of the code's layout must not change one bit of them. Where a change of results is wanted, write the file anew
and say why in the commit: ``python -m tests.test_unchanged_results > tests/unchanged_results.json``.

Integers are compared everywhere. Floating-point results are compared bitwise on the kind of machine and the version of
torch that wrote the file, and to a relative 1e-4 elsewhere: other processors sum in another order.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "partial_fc"))  # for the run as a script

from simulation import on_ranks

from data_pipeline.augment.draws import Change, Draws
from data_pipeline.formats.recordio.source import RecordSource
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.loader.image_loader import ImageFormat, ImageLoader
from data_pipeline.order.balanced import BalancedOrder
from data_pipeline.order.shuffled import ShuffledOrder
from data_pipeline.synthetic.people import identity_image
from partial_fc import (
    AdaCos,
    ArcFace,
    CosFace,
    CosineSoftmax,
    Objective,
    P2SGrad,
    RowAdamW,
    RowOptimizer,
    RowSGD,
    ShardedClassifier,
    World,
)
from partial_fc.rows.sampling import drawn_columns
from partial_fc.rows.sharding import owned_targets

FILE = Path(__file__).with_name("unchanged_results.json")
C, D, N, STEPS, SEED = 300, 32, 24, 3, 11
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "adacos": lambda: AdaCos(C),
    "adacos_fixed": lambda: AdaCos(C, dynamic=False),
    "adacos_previous": lambda: AdaCos(C, statistics="previous"),
    "p2sgrad": P2SGrad,
    "arcface": lambda: ArcFace(32.0, 0.5),
    "arcface_straight_through": lambda: ArcFace(32.0, 0.5, straight_through=True),
    "cosface": lambda: CosFace(32.0, 0.35),
    "cosine_softmax": lambda: CosineSoftmax(16.0),
}
ROWS: dict[str, Callable[[], RowOptimizer | None]] = {
    "torch": lambda: None,
    "sgd": lambda: RowSGD(0.05, momentum=0.9),
    "adamw": lambda: RowAdamW(0.01, weight_decay=0.1),
    "bfloat16_state": lambda: RowSGD(0.05, momentum=0.9, state_dtype=torch.bfloat16),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "sampled": {"sample_rate": 0.2},
    "narrow_blocks": {"block_classes": 37, "cosines": "keep"},
    "gram": {"gram": "always"},
    "bfloat16": {"product_dtype": torch.bfloat16, "weight_dtype": torch.bfloat16},
}


def machine() -> dict[str, str]:
    """What decides the order in which a processor sums."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    facts = [re.search(rf"^{name}\s*:\s*(.*)$", cpuinfo, re.MULTILINE) for name in ("vendor_id", "cpu family", "model")]
    processor = " ".join(fact[1] for fact in facts if fact)
    return {"torch": torch.__version__, "processor": f"{processor} {torch.backends.cpu.get_cpu_capability()}"}


def digest(tensors: Iterable[torch.Tensor | np.ndarray[Any, Any]]) -> str:
    whole = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().float().numpy() if isinstance(tensor, torch.Tensor) else tensor
        whole.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()[:16]


def steps_of(objective: str, rows: str, options: str, size: int) -> dict[str, Any]:
    """The losses of some steps, and digests of the embeddings' gradients and of the rows, over ``size`` ranks."""

    def work(world: World) -> tuple[list[float], list[torch.Tensor]]:
        made = OBJECTIVES[objective]()
        head = ShardedClassifier(C, D, made, world=world, row_optimizer=ROWS[rows](), seed=SEED, **OPTIONS[options])
        losses, tensors = list[float](), list[torch.Tensor]()
        for step in range(STEPS):
            generator = torch.Generator().manual_seed(100 * step + world.rank)
            labels_n = torch.randint(C, (N // size + world.rank,), generator=generator)
            embeddings_nD = torch.randn(len(labels_n), D, generator=generator).requires_grad_()
            loss = head(embeddings_nD, labels_n)
            loss.backward()
            assert embeddings_nD.grad is not None
            losses.append(loss.item())
            tensors.append(embeddings_nD.grad)
            if head.row_optimizer is None:
                assert head.weight.grad is not None
                tensors.append(head.weight.grad)
        return losses, [*tensors, head.weight, *(tensor for tensor in head.buffers() if tensor is not None)]

    results = on_ranks(size, work)
    return {
        "losses": results[0][0],
        "digest": digest(tensor for _, tensors in results for tensor in tensors),
    }


def classifier_results() -> dict[str, Any]:
    every_objective = [(name, "sgd", "all", 2) for name in OBJECTIVES]
    every_rows = [(name, rows, "all", 1) for rows in ROWS for name in ("adacos", "p2sgrad")]
    every_option = [(name, "sgd", option, 3) for option in OPTIONS for name in ("adacos", "p2sgrad", "cosface")]
    cases = dict.fromkeys((*every_objective, *every_rows, *every_option))
    return {" ".join(map(str, case)): steps_of(*case) for case in cases}


def integer_results() -> dict[str, str]:
    """What is made of whole numbers, or of hashes by exact steps."""
    positions = np.arange(5000)
    labels = np.arange(1200) // 6
    balanced = BalancedOrder(labels, global_batch=32, images_each=4, seed=SEED)
    draws = Draws(positions // 1000, positions % 1000, SEED)
    shard = range(100, 400)
    targets = owned_targets(torch.tensor([3, 177]), shard)
    columns = [drawn_columns(targets, shard, 0.3, SEED, step) for step in range(4)]
    return {
        "shuffled order": digest(ShuffledOrder(1201, SEED).samples_at(positions)),
        "balanced order": digest(balanced.samples_at(positions)),
        "augmentation draws": digest([draws.moves(), *(draws.of(change) for change in Change)]),
        "drawn classes": digest(column.numpy() for column in columns),
    }


def loader_results(folder: Path) -> dict[str, str]:
    """The order that a loader on two ranks follows, by its labels: every image has one of its own."""
    with RecordWriter(folder / "train.rec") as writer:
        for number in range(30):
            header = b"P6 16 16 255\n"
            writer.append(number, header + identity_image(number // 5, number % 5, size=16).tobytes())
    source, found = RecordSource(folder / "train.rec"), {}
    for rank in range(2):
        form = ImageFormat(16, 16)
        loader = ImageLoader(source, form, global_batch=9, rank=rank, size=2, seed=SEED, start_step=2)
        batches = [next(loader) for _ in range(5)]
        found[f"loader, rank {rank}"] = digest(batch.labels.numpy() for batch in batches)
    return found


def results(folder: Path) -> dict[str, Any]:
    return {
        "machine": machine(),
        "integers": {**integer_results(), **loader_results(folder)},
        "classifier": classifier_results(),
    }


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def test_orders_and_draws_are_what_they_were(recorded: dict[str, Any], tmp_path: Path) -> None:
    assert {**integer_results(), **loader_results(tmp_path)} == recorded["integers"]


def test_losses_gradients_and_rows_are_what_they_were(recorded: dict[str, Any]) -> None:
    found, expected = classifier_results(), recorded["classifier"]
    assert found.keys() == expected.keys()
    for case, result in found.items():
        assert result["losses"] == pytest.approx(expected[case]["losses"], rel=1e-4), case
    if machine() == recorded["machine"]:
        assert found == expected


if __name__ == "__main__":
    import tempfile

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(results(Path(folder)), indent=1))
