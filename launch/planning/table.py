"""A plan on the terminal: a GPU's memory by part, what the GPUs say to each other, then 1 to 1024 GPUs; a save."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from launch.config.run import Config
from launch.config.stages import objectives_in_words
from launch.planning.forecast import Forecast, Planner
from launch.units import bytes_text, seconds_text
from partial_fc.checkpoint.tensor_file import PIECE_BYTES
from partial_fc.planning.rates import Rates

_WIDTH_ELSEWHERE = 100  # of a pipe or a file


def print_plan(config: Config, planner: Planner, plans: Sequence[Forecast], asked: Forecast, origin: str) -> None:
    """Print all of it; without a terminal in plain characters."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=_WIDTH_ELSEWHERE)
    rates = planner.rates
    console.print(
        f"{config.backbone.name} ({planner.backbone.parameters / 1e6:.1f} M parameters), "
        f"{objectives_in_words(config)}, {planner.num_classes:,} classes of {config.backbone.embedding_dim}, "
        f"{config.classifier.products} products"
    )
    console.print(_parts_table(console, planner, asked))
    if asked.collectives:
        console.print(_collectives_table(console, planner, asked))
    console.print(_fit_table(console, planner, plans))
    console.print(_time_table(console, plans, config.data.num_images))
    if len(asked.stages) > 1:
        console.print(_stages_table(console, asked))
    console.print(_save_table(console, planner, asked, in_parts=config.checkpoint.in_background is False))
    console.print(
        f"rates {origin}: {rates.float32_operations / 1e12:.3g} float32, {rates.tf32_operations / 1e12:.3g} TF32, "
        f"{rates.bfloat16_operations / 1e12:.3g} bfloat16 Tflop/s; {rates.memory_bytes / 1e9:,.0f} GB/s of memory; "
        f"{rates.link_bytes / 1e9:,.0f} GB/s in a machine of {rates.ranks_per_machine}, "
        f"{rates.network_bytes / 1e9:,.0f} GB/s between machines; {seconds_text(rates.latency_seconds)} latency; "
        f"{rates.copy_bytes / 1e9:,.3g} GB/s into the host's memory, {_disk(rates)}. "
        "Times are a roofline of eager operators: launches, data and stragglers come on top, fusing takes off."
    )


def _parts_table(console: Console, planner: Planner, plan: Forecast) -> Table:
    gpus = f"{plan.gpus} GPU{'s' * (plan.gpus > 1)}"
    table = _table(console, f"memory of each of {gpus}, {plan.batch:,} images a step", "part", "bytes", "share")
    total = plan.total_bytes
    for part, number in plan.memory_bytes.items():
        if number:
            table.add_row(part, bytes_text(number), f"{100 * number / total:.1f} %")
    verdict = "fits" if total <= planner.memory_bytes else "DOES NOT FIT"
    table.add_section()
    table.add_row("all", bytes_text(total), f"{verdict} in {bytes_text(planner.memory_bytes)}")
    table.add_row("largest number of classes that fits", f"{plan.most_classes:,}", "")
    return table


def _collectives_table(console: Console, planner: Planner, plan: Forecast) -> Table:
    table = _table(console, f"said in a step, {plan.gpus} GPUs", "what", "kind", "calls", "bytes", "time")
    for collective in plan.collectives:
        seconds = seconds_text(collective.seconds(plan.gpus, planner.rates))
        table.add_row(
            collective.what,
            collective.kind,
            str(collective.count),
            bytes_text(collective.total_bytes),
            f"({seconds})" if collective.is_hidden else seconds,
        )
    table.caption = "in brackets: hidden behind computing, as far as that lasts"
    return table


def _fit_table(console: Console, planner: Planner, plans: Sequence[Forecast]) -> Table:
    table = _table(console, "what fits", "GPUs", "images a step", "memory", "fits", "most classes")
    for plan in plans:
        fits = "yes" if plan.total_bytes <= planner.memory_bytes else "no"
        table.add_row(f"{plan.gpus:,}", f"{plan.batch:,}", bytes_text(plan.total_bytes), fits, f"{plan.most_classes:,}")
    return table


def _time_table(console: Console, plans: Sequence[Forecast], num_images: int | None) -> Table:
    names = ["GPUs", "backbone", "classifier", "waiting", "step", "images/s"]
    table = _table(console, "how long a step takes", *names, *(["epoch"] if num_images else []))
    for plan in plans:
        waiting = seconds_text(plan.time.communication) if plan.time.communication else "-"
        seconds = (seconds_text(plan.time.backbone), seconds_text(plan.time.head), waiting)
        epoch = [seconds_text(num_images / plan.images_per_second)] if num_images else []
        step = seconds_text(plan.time.total)
        table.add_row(f"{plan.gpus:,}", *seconds, step, f"{plan.images_per_second:,.0f}", *epoch)
    return table


def _stages_table(console: Console, plan: Forecast) -> Table:
    names = ["share of the run", "memory", "classifier", "step", "images/s"]
    table = _table(console, f"the stages of the run, {plan.gpus} GPU{'s' * (plan.gpus > 1)}", "stage", *names)
    for number, stage in enumerate(plan.stages, 1):
        seconds = seconds_text(stage.time.head), seconds_text(stage.time.total)
        rate = f"{plan.batch / stage.time.total:,.0f}"
        name = f"{number} {stage.name}".removesuffix(f" stage {number}")
        table.add_row(name, f"{100 * stage.share:.3g} %", bytes_text(stage.total_bytes), *seconds, rate)
    table.caption = "above: memory and what is said of the stage that needs most, times as the mean over the run"
    return table


def _save_table(console: Console, planner: Planner, plan: Forecast, *, in_parts: bool) -> Table:
    table = _table(console, f"a save of {plan.gpus} GPU{'s' * (plan.gpus > 1)}", "what", "bytes", "time")
    writing = plan.save.writing_seconds(planner.rates)
    took = "-" if writing is None else seconds_text(writing)
    # A piece at a time, but the backbone's weights at once where they lie on a GPU.
    parts = bytes_text(PIECE_BYTES + planner.head.spec.on_gpu * planner.backbone.held_bytes)
    if in_parts:
        table.add_row("host memory of rank 0, in parts", parts, "")
        table.add_row("checkpoint, while training waits", bytes_text(plan.save.checkpoint_bytes), took)
        return table
    pause = seconds_text(plan.save.pause_seconds(planner.rates))
    table.add_row("host memory of rank 0, while training waits", bytes_text(plan.save.rank_bytes), pause)
    table.add_row("checkpoint, while it goes on", bytes_text(plan.save.checkpoint_bytes), took)
    table.caption = f"where that memory is not free: {parts}, and training waits for the writing"
    return table


def _disk(rates: Rates) -> str:
    return f"{rates.disk_bytes / 1e9:,.3g} GB/s onto a disk" if rates.disk_bytes else "no rate of the disk is known"


def _table(console: Console, title: str, first: str, *others: str) -> Table:
    table = Table(title=title, box=box.HEAVY_HEAD if console.is_terminal else box.ASCII2, title_justify="left")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="left" if name == "kind" else "right", no_wrap=True)
    return table
