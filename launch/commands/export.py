"""``partial-fc export``: a trained network as a file for other programs, compared with it on real images."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import partial_fc
from data_pipeline.loader.dali_graph import ImageFormat
from data_pipeline.loader.image_loader import usable_batches
from data_pipeline.source import Source
from launch import assembly
from launch.assembly.data import training_paths
from launch.assembly.run_folder import RunFolder
from launch.config.loading import ConfigError, load_config
from launch.units import bytes_text
from partial_fc.evaluation import evaluate
from partial_fc.inference.exporting import SUFFIXES, export, quantise
from partial_fc.inference.facts import NORMALISED, PIXELS, RAW, UNIT, Facts
from partial_fc.inference.model import Model, Numbers, load, of_module, unit
from partial_fc.inference.trained import trained_network
from partial_fc.world import World

BATCH, CALIBRATION_IMAGES = 64, 512
CPU = torch.device("cpu")


def run(arguments: argparse.Namespace) -> int:
    """Write the file, say what it takes and gives, and how near it is to the network."""
    if arguments.precision == "int8" and arguments.format != "onnx":
        raise ConfigError(f"--precision int8 is for --format onnx alone, not for {arguments.format}")
    network, facts = trained_network(arguments.model, arguments.input_size)
    facts = replace(
        facts,
        input=PIXELS if arguments.raw_pixels else NORMALISED,
        output=UNIT if arguments.unit_length else RAW,
        precision=arguments.precision,
        licence=arguments.licence,
        made_by=f"partial_fc {partial_fc.__version__}",
    )
    source, path = _source(arguments), arguments.out or _default_path(arguments)
    if facts.precision == "int8":
        if source is None:
            raise ConfigError("--precision int8 is calibrated on images: give --images SET")
        _write_int8(network, facts, source, path)
    else:
        export(network, facts, arguments.format, path)
    print(f"{path}  {bytes_text(path.stat().st_size)}")
    for name, text in facts.texts().items():
        if text:
            print(f"  {name}: {text}")
    _compare(network, facts, source, path, arguments)
    return 0


def _source(arguments: argparse.Namespace) -> Source | None:
    """The images to compare on: those given, or of the run; None where none are known, or those are not here."""
    if arguments.images is not None:
        return assembly.open_held_out(arguments.images)
    file = RunFolder(_run_of(arguments.model)).config
    if not file.is_file():
        return None
    data = load_config(file).data
    if not all(path.exists() for path in ([data.evaluate] if data.evaluate else training_paths(data))):
        return None
    return assembly.open_held_out(data.evaluate) if data.evaluate is not None else assembly.open_training_data(data, 0)


def _default_path(arguments: argparse.Namespace) -> Path:
    """``export/`` in the run, or beside the weights: ``RUN/export/RUN.onnx``, ``RUN-int8.onnx``, ``STEP.onnx``."""
    model = arguments.model.resolve()
    name, folder = (model.name, _run_of(model)) if model.is_dir() else (model.stem, model.parent)
    precision = "" if arguments.precision == "float32" else f"-{arguments.precision}"
    return Path(folder / "export" / f"{name}{precision}{SUFFIXES[arguments.format]}")


def _run_of(model: Path) -> Path:
    """The run of which ``model`` is a checkpoint, as checkpoints are removed in time; any other path as it is."""
    path = model.resolve()
    return path.parents[1] if path.is_dir() and path.parent.name == "checkpoints" else path


def _write_int8(network: nn.Module, facts: Facts, source: Source, path: Path) -> None:
    """The network in 8-bit integers, calibrated on images from all of ``source``."""
    step = max(len(source) // CALIBRATION_IMAGES, 1)
    chosen = range(0, len(source), step)[:CALIBRATION_IMAGES]
    with TemporaryDirectory() as scratch:
        wide = Path(scratch) / "float32.onnx"
        export(network, replace(facts, precision="float32"), "onnx", wide)
        quantise(wide, facts, [_as_taken(images, facts) for images, _ in _batches(source, chosen, facts)], path)


def _batches(source: Source, samples: range, facts: Facts) -> Iterator[tuple[Numbers, Numbers]]:
    """Images, normalised, and labels; those that cannot be used are left out."""
    bad = dict[int, str]()
    form = ImageFormat(facts.input_size, facts.input_size)
    for number, batch in enumerate(usable_batches(source, form, samples, batch=BATCH, bad=bad)):
        numbers = samples[number * BATCH : number * BATCH + len(batch.labels)]
        good = np.array([sample not in bad for sample in numbers])
        yield batch.images.numpy()[good], batch.labels.numpy()[good]


def _as_taken(images: Numbers, facts: Facts) -> Numbers:
    return np.asarray((images + 1) * 127.5, np.float32) if facts.input == PIXELS else images


def _compare(
    network: nn.Module, facts: Facts, source: Source | None, path: Path, arguments: argparse.Namespace
) -> None:
    """Say how far the file's embeddings are from the network's, and what either is worth on these images."""
    if source is None or not arguments.check or arguments.format == "torch":
        print("not compared with the network" + ("" if source is not None else ": give --images SET"))
        return
    written, reference = load(path), Model(of_module(network, CPU), replace(facts, input=NORMALISED))
    samples = range(len(source))[: arguments.check]
    found, labels = dict[str, list[Numbers]](network=[], file=[]), list[Numbers]()
    for images, labels_n in _batches(source, samples, facts):
        found["network"].append(unit(reference.forward(images)))
        found["file"].append(unit(written.forward(_as_taken(images, facts))))
        labels.append(labels_n)
    rows = {name: np.concatenate(each) for name, each in found.items()}
    error = float(np.max(1 - (rows["network"].astype(np.float64) * rows["file"]).sum(1)))
    print(f"largest cosine distance to the network: {error:.3g}, over {len(rows['file']):,} images")
    _print_accuracy(rows, torch.from_numpy(np.concatenate(labels)))


def _print_accuracy(rows: dict[str, Numbers], labels_N: torch.Tensor) -> None:
    """Rank-1 and TAR at FAR of both, where the images have pairs of one identity and of two."""
    images_each = torch.bincount(labels_N)
    if int((images_each > 0).sum()) < 2 or int(images_each.max()) < 2:
        return
    table = Table("", *rows)
    results = [evaluate(torch.from_numpy(each), labels_N, World()) for each in rows.values()]
    table.add_row("rank-1", *(f"{each.rank1:.4f}" for each in results))
    for far in islice(results[0].tar_at_far, 4):
        table.add_row(f"TAR at FAR {far}", *(f"{each.tar_at_far[far]:.4f}" for each in results))
    Console(highlight=False, markup=False).print(table)
