"""A network that is asked for embeddings of pictures: ``partial_fc.load("RUN").embed(["a.jpg", "b.jpg"])``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export.passes import move_to_device_pass

from partial_fc.inference.facts import PIXELS, Facts
from partial_fc.inference.pictures import Pixels, pixels_of
from partial_fc.inference.trained import trained_network

Numbers = NDArray[np.float32]
Forward = Callable[[Numbers], Numbers]


class Model:
    """A trained network and how it is fed. ``facts`` say what it is; ``forward`` takes and gives what they say."""

    def __init__(self, forward: Forward, facts: Facts) -> None:
        self.forward, self.facts = forward, facts

    def embed(self, paths: Sequence[str | Path], *, batch: int = 64, flip: bool = False) -> Numbers:
        """Unit embeddings ``(n, embedding_dim)`` of the pictures at ``paths``, in their order, by Pillow.

        ``flip`` adds the embedding of the mirrored picture first, as is usual for faces. ValueError that names a file
        which is missing or no picture.
        """
        if isinstance(paths, str | Path):
            raise ValueError(f"expected a list of paths, got one: [{str(paths)!r}]")
        groups = [[Path(path) for path in paths[first : first + batch]] for first in range(0, len(paths), batch)]
        found = [self.embed_pixels(pixels_of(group, self.facts.input_size), flip=flip) for group in groups]
        return np.concatenate([np.empty((0, self.facts.embedding_dim), np.float32), *found])

    def embed_pixels(self, pixels: Pixels, *, flip: bool = False) -> Numbers:
        """Unit embeddings of RGB pixels ``(n, input_size, input_size, 3)`` uint8, as one batch."""
        side = self.facts.input_size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
            raise ValueError(f"expected uint8 pixels (n, {side}, {side}, 3), got {pixels.dtype} {pixels.shape}")
        images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
        if self.facts.input != PIXELS:
            images = images / np.float32(127.5) - np.float32(1)
        found = self.forward(images)
        if flip:
            found = found + self.forward(np.ascontiguousarray(images[..., ::-1]))
        return unit(found)


def unit(rows: Numbers) -> Numbers:
    """``rows`` of length 1; a row of zeros stays as it is."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)


def load(path: str | Path, *, input_size: int | None = None) -> Model:
    """The model at ``path``: a run's folder, a checkpoint's, ``.onnx``, ``.pt2``, ``.safetensors`` or any weights.

    It runs on a GPU where there is one, ``.onnx`` on what onnxruntime has. ``input_size``, in pixels, is for weights
    that do not say it, as a plain state dict. ValueError for what is none of these.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder")
    if path.suffix == ".onnx":
        return _of_onnx(path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if path.suffix == ".pt2":
        return _of_program(path, device)
    network, facts = trained_network(path, input_size)
    return Model(of_module(network.to(device), device), facts)


def of_module(module: Callable[[torch.Tensor], torch.Tensor], device: torch.device) -> Forward:
    """``module`` as a function of arrays."""

    def forward(images: Numbers) -> Numbers:
        with torch.no_grad():
            found = module(torch.from_numpy(images).to(device)).float().cpu()
        return np.asarray(found.numpy(), np.float32)

    return forward


def _of_program(path: Path, device: torch.device) -> Model:
    files = {"facts.txt": ""}
    try:
        program = torch.export.load(path, extra_files=files)
    except (OSError, RuntimeError, ValueError, BadZipFile) as error:
        raise ValueError(f"{path} is no program of torch.export: {error}") from error
    texts = dict(line.split("\t", 1) for line in files["facts.txt"].splitlines())
    module = move_to_device_pass(program, device).module()  # the graph itself names the device that it was traced on
    return Model(of_module(module, device), _facts(path, texts))


def _of_onnx(path: Path) -> Model:
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(f"{path} needs the package onnxruntime: pip install onnxruntime") from error
    try:
        session = onnxruntime.InferenceSession(path, providers=_providers(onnxruntime.get_available_providers()))
    except Exception as error:  # its own classes, which it does not name
        raise ValueError(f"{path} is no network that onnxruntime can run: {error}") from error
    facts = _facts(path, session.get_modelmeta().custom_metadata_map)
    name = session.get_inputs()[0].name
    return Model(lambda images: session.run(None, {name: images})[0], facts)


def _providers(available: Sequence[str]) -> list[str]:
    """A GPU where there is one, then the CPU: not TensorRT, which builds an engine of its own first."""
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]


def _facts(path: Path, texts: dict[str, str]) -> Facts:
    try:
        return Facts.of_texts(texts)
    except ValueError as error:
        raise ValueError(f"{path} does not say what it takes and gives: {error}") from error
