"""A trained network as a file for other programs: ONNX, torch.export's ``.pt2``, safetensors, a plain state dict.

BatchNorm is folded into the convolution or the linear map before it by the ONNX exporter. It stays where a padded
convolution comes after it, as in each block of an IResNet: the border of zeros would be another number there.
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from partial_fc.inference.facts import PIXELS, UNIT, Facts
from partial_fc.inference.model import Numbers

Form = Literal["onnx", "pt2", "safetensors", "torch"]
SUFFIXES: dict[Form, str] = {"onnx": ".onnx", "pt2": ".pt2", "safetensors": ".safetensors", "torch": ".pt"}
EXAMPLES = 2  # images that the network is traced with; a file takes any number


class Exported(nn.Module):
    """A network with what ``facts`` say it takes and gives built around it."""

    def __init__(self, network: nn.Module, facts: Facts) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.takes_pixels, self.gives_unit = facts.input == PIXELS, facts.output == UNIT
        self.dtype = torch.float16 if facts.precision == "float16" else torch.float32
        self.to(self.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(n, D)`` in float32 of images ``(n, 3, input_size, input_size)`` in float32."""
        if self.takes_pixels:
            images = images / 127.5 - 1.0
        embeddings: Tensor = self.network(images.to(self.dtype)).float()
        return functional.normalize(embeddings) if self.gives_unit else embeddings


def export(network: nn.Module, facts: Facts, form: Form, path: Path) -> None:
    """Write ``network``, in evaluation mode on the CPU, to ``path``, which appears when it is whole.

    ``safetensors`` and ``torch`` hold the weights alone. ValueError for facts that they cannot keep.
    """
    if form in ("safetensors", "torch") and (
        facts.input == PIXELS or facts.output == UNIT or facts.precision != "float32"
    ):
        raise ValueError(f"{form} holds float32 weights alone: raw pixels, unit length and precision need onnx or pt2")
    writers: dict[Form, Callable[[Path], object]] = {
        "onnx": lambda part: _write_onnx(Exported(network, facts), facts, part),
        "pt2": lambda part: _write_program(Exported(network, facts), facts, part),
        "safetensors": lambda part: save_file(_weights(network), part, metadata=facts.texts()),
        "torch": lambda part: torch.save(_weights(network), part),
    }
    with whole(path) as part:
        writers[form](part)


def quantise(float32: Path, facts: Facts, images: Sequence[Numbers], path: Path) -> None:
    """Write the float32 network in the ONNX file ``float32`` to ``path`` with 8-bit integers, calibrated on ``images``.

    ``images``: batches as the network takes them. Weights are rounded by channel, activations by the range that they
    have on these images. ValueError where onnxruntime is not installed.
    """
    quantization = needed("onnxruntime.quantization", "a network of 8-bit integers")
    onnx = needed("onnx", "a network of 8-bit integers")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, Numbers] | None:
            batch = next(self.rest, None)
            return None if batch is None else {"images": batch}

    with whole(path) as part, _quiet():
        quantization.quantize_static(
            float32,
            part,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        model = onnx.load(part)
        onnx.helper.set_model_props(model, replace(facts, precision="int8").texts())
        onnx.save(model, part)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which gets that name at the end of the block, and is gone after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _write_onnx(module: Exported, facts: Facts, path: Path) -> None:
    needed("onnxscript", "an export to ONNX")
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            *(module.eval(), (_example(facts),)),
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props.update(facts.texts())
        program.save(path)


def _write_program(module: Exported, facts: Facts, path: Path) -> None:
    texts = "\n".join(f"{name}\t{text}" for name, text in facts.texts().items())
    with _quiet(), torch.no_grad():
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(module.eval(), (_example(facts),), dynamic_shapes=shapes)
        torch.export.save(program, path, extra_files={"facts.txt": texts})


def _example(facts: Facts) -> Tensor:
    return torch.zeros(EXAMPLES, 3, facts.input_size, facts.input_size)


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}


def needed(package: str, what: str) -> Any:
    """The module ``package``. ValueError that says how to get it where it is not installed."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ValueError(f"{what} needs the package {package}: pip install 'partial-fc[onnx]'") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to themselves the libraries that warn of their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
