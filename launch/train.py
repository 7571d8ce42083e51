"""One rank of a training run: ``torchrun ... -m launch.train CONFIG``; ``partial-fc train`` starts them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import torch
from torch import nn

from data_pipeline.source import Source
from launch import assembly
from launch.assembly.bad_images import agreed_bad_images
from launch.assembly.run_folder import RunFolder
from launch.config.loading import load_config, resolved_yaml
from launch.config.run import Config
from launch.errors import reported
from launch.evaluation.results import evaluate_backbone
from launch.evaluation.tables import print_results
from launch.processes import keep_freed_memory
from partial_fc import ShardedClassifier, World
from partial_fc.checkpoint.saving import save_checkpoint
from partial_fc.divergence import refuse_spoilt_weights
from partial_fc.loop import train
from partial_fc.reports.meter import Meter
from partial_fc.world import local_device, process_group


def main(argv: Sequence[str] | None = None) -> int:
    """Run one rank and return its exit code (see ``launch/errors.py``)."""
    parser = argparse.ArgumentParser(prog="python -m launch.train", description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    with reported() as outcome:
        run(load_config(arguments.config, arguments.set))
    return outcome.exit_code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every way of starting a run shares."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file, such as configs/synthetic.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one value: schedule.epochs=3"
    )


def run(config: Config) -> None:
    """Train as ``config`` says, save the model, and evaluate it where held-out identities are given."""
    keep_freed_memory()
    torch.manual_seed(config.seed)
    folder = RunFolder(config.run_dir)
    source = assembly.open_training_data(config)
    held_out = None if config.data.evaluate is None else assembly.open_records(config.data.evaluate, config)
    device = local_device()
    backbone = assembly.backbone(config, config.backbone.weights)  # before its weights may be set aside with their run
    with process_group() as world, ExitStack() as open_sinks:
        if world.rank == 0 and (aside := folder.set_aside()) is not None:
            print(f"the earlier run in {folder.path} is kept as {aside}", flush=True)
        world.barrier()
        backbone = backbone.to(device)
        head = assembly.head(config, source.num_classes, world).to(device)
        model = assembly.replicated(assembly.compiled(backbone, config), world)
        optimizer = assembly.optimizer(backbone, config.optimizer)
        total_steps = max(round(config.schedule.epochs * len(source) / config.schedule.batch_size), 1)
        batches = assembly.loader(config, source, world, device)
        bad_images = partial(agreed_bad_images, batches, config.data.most_bad_images, world, device)
        facts = {"config": config.model_dump(mode="json"), "num_images": len(source)}
        save = partial(_save, folder.checkpoints, backbone=backbone, head=head, world=world, facts=facts)
        sinks = [open_sinks.enter_context(closing(sink)) for sink in assembly.sinks(config, world, source.num_classes)]
        if world.rank == 0:
            folder.config.write_text(resolved_yaml(config))
            print(_summary(config, source, backbone, total_steps, world, device), flush=True)
        train(
            range(total_steps),
            batches=batches,
            counts=assembly.batch_shares(config, world),
            backbone=model,
            head=head,
            optimizer=optimizer,
            set_rates=assembly.rate_setter(config, total_steps, len(source), optimizer, head),
            autocast=assembly.autocast(config, device),
            clip_norm=config.optimizer.clip_norm,
            meter=Meter(total_steps=total_steps, images_per_epoch=len(source), device=device, bad_images=bad_images),
            sinks=sinks,
            report_every=config.report.every_steps,
            save=save,
            save_every=config.save_every_steps,
        )
        save(total_steps)
        open_sinks.close()
        if held_out is not None:
            evaluation = evaluate_backbone(
                config, backbone, held_out, world, device, metrics=folder.metrics, out=folder
            )
            if world.rank == 0:
                print_results(evaluation, folder)


def _save(
    folder: Path, step: int, *, backbone: nn.Module, head: ShardedClassifier, world: World, facts: dict[str, object]
) -> None:
    refuse_spoilt_weights(backbone, head, step)
    save_checkpoint(folder, step, backbone, head, world, facts)


def _summary(
    config: Config, source: Source, backbone: nn.Module, total_steps: int, world: World, device: torch.device
) -> str:
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return (
        f"{len(source):,} images of {source.num_classes:,} identities; {config.backbone.name} of width "
        f"{config.backbone.width} ({parameters / 1e6:.1f} M parameters), {config.objective.name}; "
        f"{total_steps:,} steps of {config.schedule.batch_size} on {world.size} x {device.type}"
    )


if __name__ == "__main__":
    sys.exit(main())
