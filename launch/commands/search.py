"""``partial-fc search``: the identities nearest to some pictures, among the embeddings of a set."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data_pipeline.checking.contact_sheet import sheet, side_by_side
from data_pipeline.formats.by_path import source_at
from data_pipeline.formats.folders.file_source import pictures
from data_pipeline.sets.fingerprint import fingerprint
from data_pipeline.source import Source
from launch.command_line.columns import columns_of
from launch.config.loading import ConfigError
from launch.pages.strips import Section, write_strips
from launch.writing import naming
from partial_fc.inference.embedding_file import EmbeddingFile
from partial_fc.inference.model import Model, load
from partial_fc.inference.nearest import Neighbours, by_faiss, by_product, has_faiss, nearest_identities
from partial_fc.inference.trained import trained_network, weights_digest

SHEETS = (".html", ".png")


def run(arguments: argparse.Namespace) -> int:
    """Say who is nearest to each picture, and show them where that is asked for."""
    if arguments.sheet is not None and arguments.sheet.suffix not in SHEETS:
        raise ConfigError(f"--sheet {arguments.sheet}: name a file that ends in {' or '.join(SHEETS)}")
    file = EmbeddingFile(arguments.embeddings)
    source = _set_of(file, arguments) if arguments.sheet is not None else None
    queries_QD = _model(arguments.model, file).embed(arguments.images, flip=file.origin.flip)
    use_faiss = has_faiss() if arguments.faiss is None else arguments.faiss
    chosen = by_faiss if use_faiss else by_product
    found = nearest_identities(queries_QD, file.blocks(), file.labels_N, arguments.nearest, chosen)
    names = file.names(row for each in found for row in each.rows.tolist())
    for image, each in zip(arguments.images, found, strict=True):
        _print(image, each, names)
    if source is not None:
        _show(arguments.sheet, arguments.images, found, source, file)
        print(f"{arguments.sheet}  the picture looked for, then the nearest identities")
    return 0


def _model(path: Path, file: EmbeddingFile) -> Model:
    """The network at ``path``. ConfigError where the embeddings are of another, as far as its file tells."""
    if path.suffix in (".onnx", ".pt2"):  # exported ones: the same network, but for rounding
        model = load(path)
        if model.facts.embedding_dim != file.embedding_dim:
            raise _another(path, file, f"{model.facts.embedding_dim} numbers, not {file.embedding_dim}")
        return model
    model = load(path, input_size=file.origin.input_size)
    digest = weights_digest(trained_network(path, file.origin.input_size)[0])
    if digest != file.origin.network:
        raise _another(path, file, f"weights {digest}, not {file.origin.network}")
    return model


def _another(path: Path, file: EmbeddingFile, told: str) -> ConfigError:
    return ConfigError(f"--model {path} is not the network that made {file.path} ({told}): their cosines mean nothing")


def _set_of(file: EmbeddingFile, arguments: argparse.Namespace) -> Source:
    """The images that the embeddings are of. ConfigError where they are others by now."""
    path = arguments.set or Path(file.origin.images)
    source = source_at(path, columns=columns_of(arguments), root=arguments.root)
    if (len(source), fingerprint(source)) != (file.origin.num_images, file.origin.contents):
        raise ConfigError(f"{path} is not the set that {file.path} was made of, or was changed: name it by --set")
    return source


def _print(image: Path, found: Neighbours, names: dict[int, str]) -> None:
    table = Table("", "cosine", "label", "its nearest image", title=str(image), title_justify="left")
    for place, (row, label, cosine) in enumerate(zip(*(each.tolist() for each in found), strict=True), start=1):
        table.add_row(str(place), f"{cosine:.4f}", str(label), names[row])
    Console(highlight=False, markup=False).print(table)


def _show(path: Path, images: list[Path], found: list[Neighbours], source: Source, file: EmbeddingFile) -> None:
    asked, samples = pictures(images), file.origin.samples()
    strips = [
        side_by_side([(asked, at), *((source, sample) for sample in samples[each.rows].tolist())])
        for at, each in enumerate(found)
    ]
    captions = [f"{image.name}: {_in_words(each)}" for image, each in zip(images, found, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        with naming(path):
            sheet(strips, captions).save(path)
        return
    lead = "First the picture looked for, then the best image of each of the nearest identities: its label and cosine."
    section = Section("Nearest identities", lead, list(zip(strips, captions, strict=True)))
    tiles = [("Images", f"{len(file):,}", file.origin.images), ("Looked for", f"{len(images):,}", "")]
    write_strips(path, f"Nearest in {file.path.name}", tiles, [section])


def _in_words(found: Neighbours) -> str:
    pairs = zip(found.labels.tolist(), found.cosines.tolist(), strict=True)
    return ", ".join(f"{label} ({cosine:.2f})" for label, cosine in pairs)
