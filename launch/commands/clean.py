"""``partial-fc clean``: what a trained network says of a set, as lists that training honours and a page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from data_pipeline.checking.merge_list import write_merge_list
from data_pipeline.checking.quarantine import QuarantineWriter
from data_pipeline.formats.by_path import source_at
from data_pipeline.sets.identities import label_names
from data_pipeline.sets.noisy import NoisyLabels
from data_pipeline.sets.selected import SelectedSource, numbered_without_gaps
from data_pipeline.source import Source
from launch.assembly.data import training_paths
from launch.assembly.run_folder import RunFolder, refuse_inside_set
from launch.command_line.columns import columns_of
from launch.config.loading import ConfigError, load_config
from launch.config.run import Config
from launch.embedding.cleaning import (
    Copy,
    Labelled,
    OnePerson,
    WrongLabel,
    copies,
    is_trusted,
    same_people,
    usual_cosine,
    wrong_labels,
)
from launch.embedding.written import Embedder, set_embeddings
from launch.pages.cleaning import Shown, write_cleaning
from partial_fc.inference.trained import trained_network
from partial_fc.world import local_device


def run(arguments: argparse.Namespace) -> int:
    """Judge the set, write the lists and the page, and say how much was found."""
    data, out = arguments.data, arguments.out
    refuse_inside_set("--out", out, data)
    file = RunFolder(arguments.model).config
    config = load_config(file) if file.is_file() else None
    plain = numbered_without_gaps(source_at(data, columns=columns_of(arguments), root=arguments.root))
    source = _as_trained(plain, data, config)
    tests = _test_paths(arguments, config)
    network, facts = trained_network(arguments.model, arguments.input_size)
    device = local_device()
    embedder = Embedder(network.to(device), facts, device, False)
    out.mkdir(parents=True, exist_ok=True)
    embedded = set_embeddings(embedder, plain, data, out / "train.npy")
    samples = embedded.origin.samples()
    found = Labelled(embedded, torch.from_numpy(source.labels[samples]), source.num_classes)

    wrong = wrong_labels(found, arguments.margin)
    told = f"nearer to another identity than to their own, by {arguments.margin} or more"
    print(f"{len(wrong):,} of {len(source):,} images lie {told}")
    if source is not plain:
        _print_accuracy(wrong, source.labels[samples] != plain.labels[samples])
    trusted_N = is_trusted(found, wrong)
    near = usual_cosine(found, trusted_N) if arguments.near is None else arguments.near
    people = same_people(found, trusted_N, near) if near is not None else []
    _print_people(people, near, is_given=arguments.near is not None)
    opened = [
        (set_embeddings(embedder, test, path, out / f"test-{at}.npy"), test) for at, (path, test) in enumerate(tests)
    ]
    copied = copies(embedded, plain, opened, arguments.same_image)
    print(f"{len(copied):,} images are pictures of a test set, of {len(tests)}")

    names = label_names(plain, data)
    _write_lists(out, plain, samples, wrong, people, copied, names)
    write_cleaning(
        out / "clean.html", Shown(str(data), source, samples, names, trusted_N.numpy()), wrong, people, copied
    )
    print(f"{out / 'clean.html'}  look at this one before you use the lists")
    print(f"{out / 'quarantine.tsv'}  for data.quarantine: wrong labels, pictures of a test set")
    print(f"{out / 'merge.tsv'}  for data.merge: identities that are one")
    return 0


def _as_trained(plain: Source, data: Path, config: Config | None) -> Source:
    """The set with the labels that the run was trained on: wrong ones on purpose, where its config asked for them."""
    if config is None or not config.data.label_noise:
        return plain
    if [path.resolve() for path in training_paths(config.data)] != [data.resolve()]:
        return plain
    if config.data.least_images_per_identity > 1 or config.data.merge is not None:
        raise ConfigError("data.label_noise of the run was drawn for a part of the set: its labels are not known here")
    return NoisyLabels(plain, config.data.label_noise, config.seed)


def _test_paths(arguments: argparse.Namespace, config: Config | None) -> list[tuple[Path, Source]]:
    given = arguments.test
    if given is None:
        given = [config.data.evaluate] if config is not None and config.data.evaluate is not None else []
    return [
        (path, source_at(path, columns=columns_of(arguments), root=arguments.root, needs_table=False)) for path in given
    ]


def _print_accuracy(wrong: Sequence[WrongLabel], is_planted: np.ndarray) -> None:
    hits, planted = int(is_planted[[each.row for each in wrong]].sum()), int(is_planted.sum())
    figures = f"precision {hits / max(len(wrong), 1):.3f}, recall {hits / max(planted, 1):.3f}"
    print(f"  against the {planted:,} wrong labels of data.label_noise: {figures}")


def _print_people(people: Sequence[OnePerson], near: float | None, *, is_given: bool) -> None:
    if near is None:
        print("no identity has four images, whose halves would say how near one person is: give --near")
        return
    told = "" if is_given else ", as near as the two halves of nine in ten identities"
    print(f"{len(people):,} pairs of identities have centres with a cosine of {near:.3f} or more{told}")


def _write_lists(
    out: Path,
    plain: Source,
    samples: np.ndarray,
    wrong: Sequence[WrongLabel],
    people: Sequence[OnePerson],
    copied: Sequence[Copy],
    names: dict[int, str],
) -> None:
    """The quarantine list and the merge list, of the set as it lies on disk."""
    disk = plain.source if isinstance(plain, SelectedSource) else plain
    on_disk = plain.original_labels if isinstance(plain, SelectedSource) else np.arange(plain.num_classes)
    reasons = {
        int(samples[each.row]): f"label: called {names.get(each.label, each.label)} (cosine {each.own:.3f}), nearer to "
        f"{names.get(each.nearest, each.nearest)} ({each.other:.3f})"
        for each in wrong
    }
    reasons |= {each.sample: f"test picture: the same as {each.test.name(each.test_sample)}" for each in copied}
    with QuarantineWriter(out / "quarantine.tsv", disk) as quarantine:
        for sample in sorted(reasons):
            quarantine.append(sample, reasons[sample])
    pairs = (
        (
            int(on_disk[each.second]),
            int(on_disk[each.first]),
            f"{names.get(each.second, each.second)} and {names.get(each.first, each.first)}: cosine {each.cosine:.3f}",
        )
        for each in people
    )
    write_merge_list(out / "merge.tsv", disk, pairs)
