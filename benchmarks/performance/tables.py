"""The records of one machine as Markdown: what it is, the time per class, every case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

from benchmarks.classifier.case import OURS
from benchmarks.classifier.ceilings import Ceilings
from benchmarks.classifier.records import Record
from benchmarks.documents import NOTHING, known, table
from benchmarks.performance.cases import over_classes

Columns = dict[str, Callable[[Record], str]]

STEP: Columns = {"s a step": lambda record: f"{record.ours.median_seconds:.3g}"}
PEAK: Columns = {"peak GB": lambda record: f"{record.ours.peak_bytes / 1e9:.2f}"}
FLOOR: Columns = {"x floor": lambda record: f"{record.time_over_floor:.2f}"}
PER_CLASS: Columns = {
    "C": lambda record: f"{record.case.num_classes:,}",
    **STEP,
    "ns a class": lambda record: f"{record.seconds_per_class * 1e9:.0f}",
    "x that of one C": lambda record: known(record.times_per_class, ".2f"),
    **PEAK,
    "x weights and state": lambda record: f"{record.ours.peak_over_held:.3f}",
    **FLOOR,
}
EVERY_CASE: Columns = {
    **STEP,
    "least to most": lambda record: f"{min(record.ours.seconds):.3g} to {max(record.ours.seconds):.3g}",
    "images/s": lambda record: f"{record.case.batch / record.ours.median_seconds:,.0f}",
    **PEAK,
    "x weights and state": lambda record: f"{record.ours.peak_over_held:.2f}",
    **FLOOR,
    "the other": lambda record: _the_other(record),
    "its s": lambda record: known(None if record.against is None else record.against.median_seconds, ".3g"),
    "its peak GB": lambda record: known(None if record.against is None else record.against.peak_bytes / 1e9, ".2f"),
    "times faster": lambda record: known(record.times_faster, ".3g"),
    "of its memory": lambda record: known(record.share_of_memory, ".3g"),
}


def machine_part(records: Mapping[str, Record], pictures: Sequence[str]) -> str:
    """Everything about one machine, under a heading; `pictures` are paths as the document sees them."""
    newest = max(records.values(), key=lambda record: record.date)
    machine = newest.machine
    title = f"{machine.gpus} x {machine.gpu}" if machine.gpus else f"{machine.processor}, {machine.cores} cores"
    shown = "\n\n".join(f"![{path.rpartition('/')[2].removesuffix('.svg')}]({path})" for path in pictures)
    parts = [
        f"### {title}",
        f"{machine.description}. Measured until {newest.date}. {_best(records)}",
        *([f"#### Time per class\n\n{per_class_table(records)}"] if _curve(records) else []),
        *([shown] if shown else []),
        f"#### Every case\n\n{cases_table(records)}",
    ]
    return "\n\n".join(parts)


def per_class_table(records: Mapping[str, Record]) -> str:
    """The cases over which the time per class should not change."""
    figures = [[cell(record) for cell in PER_CLASS.values()] for record in _curve(records)]
    return table(list(PER_CLASS), figures, text_columns=0)


def cases_table(records: Mapping[str, Record]) -> str:
    """A row for each record: ours, then the other, then both compared."""
    links = [f"[{name}](performance/{record.machine.name}/{name}.json)" for name, record in records.items()]
    figures = [[cell(record) for cell in EVERY_CASE.values()] for record in records.values()]
    return table(["case", *EVERY_CASE], [[link, *row] for link, row in zip(links, figures, strict=True)])


def _curve(records: Mapping[str, Record]) -> list[Record]:
    devices = {record.case.device for record in records.values()}
    return [records[name] for device in devices for name in over_classes(device) if name in records]


def _best(records: Mapping[str, Record]) -> str:
    best = reduce(Ceilings.or_better, [record.rates for record in records.values()])
    int8 = f", {best.int8_operations / 1e9:,.0f} in int8" if best.int8_operations else ""
    return (
        f"At its best over all cases it did {best.float32_operations / 1e9:,.0f} GFLOP/s in float32, "
        f"{best.bfloat16_operations / 1e9:,.0f} in bfloat16{int8}, and moved {best.memory_bytes / 1e9:,.0f} GB/s."
    )


def _the_other(record: Record) -> str:
    """What ours is compared with, and over how many classes."""
    if record.against is None:
        return NOTHING if record.against_failure is None else "out of memory"
    if record.case.compares_losses:
        return f"ours, {record.case.against_objective}"
    if record.case.against == OURS:
        return f"ours, C = {record.case.case_against.num_classes:,}"
    name, rate = record.against.short_name, record.case.rate_against
    return name if rate == 1.0 else f"{name} at {rate:.3g}"
