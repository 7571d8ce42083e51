"""The records of one machine as Markdown: what it is, the time per class, every case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from benchmarks.classifier.case import OURS
from benchmarks.classifier.ceilings import Ceilings
from benchmarks.classifier.records import Measurement, Record
from benchmarks.documents import table
from benchmarks.performance.cases import over_classes

NOTHING = "–"
Records = Mapping[str, Record]


def machine_part(records: Records, pictures: Sequence[str]) -> str:
    """Everything about one machine, under a heading; `pictures` are paths as the document sees them."""
    newest = max(records.values(), key=lambda record: record.date)
    machine = newest.machine
    title = f"{machine.gpus} x {machine.gpu}" if machine.gpus else f"{machine.processor}, {machine.cores} cores"
    shown = "\n\n".join(f"![{path.rpartition('/')[2].removesuffix('.svg')}]({path})" for path in pictures)
    parts = [
        f"### {title}",
        f"{machine.description}. Measured until {newest.date}. {_best(records)}",
        f"#### Time per class\n\n{per_class_table(records)}",
        *([shown] if shown else []),
        f"#### Every case\n\n{cases_table(records)}",
    ]
    return "\n\n".join(parts)


def per_class_table(records: Records) -> str:
    """The cases over which the time per class should not change."""
    columns = ("C", "s a step", "ns a class", "x that of one C", "peak GB", "x weights and state", "x floor")
    rows = [
        (
            f"{record.case.num_classes:,}",
            f"{record.ours.median_seconds:.3g}",
            f"{record.seconds_per_class * 1e9:.0f}",
            _known(record.times_per_class, ".2f"),
            f"{record.ours.peak_bytes / 1e9:.2f}",
            f"{record.ours.peak_over_held:.3f}",
            f"{record.time_over_floor:.2f}",
        )
        for record in (records[name] for name in _curve(records))
    ]
    return table(columns, rows, text_columns=0)


def cases_table(records: Records) -> str:
    """A row for each record: ours, then the other, then both compared."""
    columns = (
        *("case", "s a step", "least to most", "images/s", "peak GB", "x weights and state", "x floor"),
        *("the other", "its s", "its peak GB", "times faster", "of its memory"),
    )
    return table(columns, [[_linked(name, record), *_cells(record)] for name, record in records.items()])


def _curve(records: Records) -> list[str]:
    """The names of the time-per-class cases that are there."""
    devices = {record.case.device for record in records.values()}
    return [name for device in devices for name in over_classes(device) if name in records]


def _best(records: Records) -> str:
    best = reduce(Ceilings.or_better, [record.rates for record in records.values()])
    return (
        f"At its best over all cases it did {best.float32_operations / 1e9:,.0f} GFLOP/s in float32, "
        f"{best.bfloat16_operations / 1e9:,.0f} in bfloat16, and moved {best.memory_bytes / 1e9:,.0f} GB/s."
    )


def _linked(name: str, record: Record) -> str:
    return f"[{name}](performance/{record.machine.name}/{name}.json)"


def _cells(record: Record) -> list[str]:
    ours, other = record.ours, record.against
    cells = [
        f"{ours.median_seconds:.3g}",
        f"{min(ours.seconds):.3g} to {max(ours.seconds):.3g}",
        f"{record.case.batch / ours.median_seconds:,.0f}",
        f"{ours.peak_bytes / 1e9:.2f}",
        f"{ours.peak_over_held:.2f}",
        f"{record.time_over_floor:.2f}",
    ]
    if other is None:
        return [*cells, NOTHING if record.against_failure is None else "out of memory", *[NOTHING] * 4]
    cells += [_contender(record, other), f"{other.median_seconds:.3g}", f"{other.peak_bytes / 1e9:.2f}"]
    return [*cells, _known(record.times_faster, ".3g"), _known(record.share_of_memory, ".3g")]


def _contender(record: Record, other: Measurement) -> str:
    if record.case.against == OURS:
        return f"ours, C = {record.case.case_against.num_classes:,}"
    rate = record.case.rate_against
    return other.short_name if rate == 1.0 else f"{other.short_name} at {rate:.3g}"


def _known(ratio: float | None, form: str) -> str:
    return NOTHING if ratio is None else f"{ratio:{form}}"
