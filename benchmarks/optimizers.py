"""What the update of a backbone's weights takes: torch's loop, foreach and fused optimizers, and apex's.

    python -m benchmarks.optimizers                                      # r50 on the CPU: two minutes
    python -m benchmarks.optimizers --device cuda --network r100
    python -m benchmarks.optimizers --json OUT --document docs/performance.md

The weights are those of the network in channels-last order, as the trainer has them; the gradients are random. The ways
take their steps in turns, one each, and of each way the median counts, next to that of torch's fused one of the same
rule. Rows of apex are there where it is installed and the device is a GPU.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.arguments import parser
from benchmarks.documents import publish, table
from benchmarks.machine import this_machine
from launch import assembly
from launch.config.apex import has_apex
from launch.config.run import OptimizerConfig
from partial_fc.backbones import BACKBONES, backbone

PART, FUSED = "optimizers", "fused"
Maker = Callable[[nn.Module], torch.optim.Optimizer]
KINDS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4),
    "adamw": partial(torch.optim.AdamW, lr=1e-3, weight_decay=5e-4),
}
WAYS = {  # of torch
    "loop": {"foreach": False, "fused": False},
    "foreach": {"foreach": True, "fused": False},
    FUSED: {"foreach": False, "fused": True},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write where asked to."""
    chosen = _parser().parse_args(argv)
    makers = {(rule, way): maker for rule, way, maker in _makers(chosen.device)}
    seconds = measured(chosen, makers)
    network = backbone(chosen.network)
    result = {
        "machine": this_machine(chosen.device).description,
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "network": chosen.network,
        "parameters": sum(each.numel() for each in network.parameters()),
        "tensors": len(list(network.parameters())),
        "steps": {f"{rule} {way}": each for (rule, way), each in seconds.items()},
    }
    publish(result, PART, document_part(result), kept=chosen.json, document=chosen.document)
    return 0


def measured(chosen: argparse.Namespace, makers: dict[tuple[str, str], Maker]) -> dict[tuple[str, str], list[float]]:
    """The seconds of every step of every way; the first step, which makes the state, is not among them."""
    network = backbone(chosen.network).to(chosen.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for parameter in network.parameters():
        parameter.grad = 1e-3 * torch.randn_like(parameter)
    optimizers = {name: make(network) for name, make in makers.items()}
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in makers}
    for turn in range(1 + chosen.steps):
        for name, optimizer in optimizers.items():
            taken = _step_seconds(optimizer, chosen.device)
            if turn:
                seconds[name].append(taken)
    return seconds


def document_part(result: dict[str, Any]) -> str:
    """The table and what it was measured on, in Markdown."""
    medians = {tuple(name.split()): median(steps) for name, steps in result["steps"].items()}
    rows = [
        [rule, way, f"{1e3 * seconds:.2f}", _against(seconds, medians.get((rule, FUSED)))]
        for (rule, way), seconds in medians.items()
    ]
    steps = len(next(iter(result["steps"].values())))
    return (
        f"{table(['rule', 'way', 'ms', 'of fused'], rows, text_columns=2)}\n\n"
        f"{result['network']}: {result['parameters'] / 1e6:.1f} M weights in {result['tensors']} tensors; medians of "
        f"{steps} steps in turns. {result['machine']}, load {result['load']:.1f}. {result['date']}."
    )


def _against(seconds: float, fused_seconds: float | None) -> str:
    return f"{seconds / fused_seconds:.2f} x" if fused_seconds else "–"


def _step_seconds(optimizer: torch.optim.Optimizer, device: str) -> float:
    """Seconds of one step, to the end of its last kernel."""
    _finish(device)
    began = time.perf_counter()
    optimizer.step()
    _finish(device)
    return time.perf_counter() - began


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _makers(device: str) -> Iterator[tuple[str, str, Maker]]:
    """Rule, way and what makes the optimizer."""
    for rule, kind in KINDS.items():
        for way, options in WAYS.items():
            yield rule, way, partial(_of_torch, kind, options)
    if device == "cuda" and has_apex():
        for rule in ("sgd", "adamw", "lamb"):
            section = OptimizerConfig.model_validate({"name": f"apex_{rule}", "learning_rate": 1e-3})
            yield rule, "apex", partial(assembly.optimizer, section)


def _of_torch(
    kind: Callable[..., torch.optim.Optimizer], options: dict[str, bool], network: nn.Module
) -> torch.optim.Optimizer:
    return kind([each for each in network.parameters() if each.requires_grad], **options)


def _parser() -> argparse.ArgumentParser:
    arguments = parser("optimizers", __doc__)
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments.add_argument("--network", choices=tuple(BACKBONES), default="r50", help="(default: %(default)s)")
    arguments.add_argument("--steps", type=int, default=10, help="of each way (default: %(default)s)")
    arguments.add_argument("--json", type=Path, help="where the figures go, every step's")
    arguments.add_argument("--document", type=Path, help="a Markdown file with the markers of this part")
    return arguments


if __name__ == "__main__":
    raise SystemExit(main())
