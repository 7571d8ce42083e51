"""What `scale` measured as Markdown: the set, and the trainings on it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.documents import table
from benchmarks.machine import Machine

GIGABYTE, MEGABYTE = 1e9, 1e6
LONGEST_OPENING_SECONDS = 2.0
TITLES = {"p2sgrad": "P2SGrad", "adacos": "AdaCos"}
Result = Mapping[str, Any]


def document_part(result: Result) -> str:
    """Everything about one set on one machine, under a heading."""
    packed, machine = result["packing"]["figures"], Machine(**result["machine"])
    loads = ", ".join(f"{name.replace('_', ' ')} {part['load']:.1f}" for name, part in result.items() if "load" in part)
    newest = max(part["date"] for part in result.values() if "date" in part)
    images = packed["identities"] * packed["images"]
    parts = [
        f"### {packed['identities']:,} identities, {images:,} images of {packed['size']} pixels",
        f"{machine.description}. Measured until {newest}. Load of the machine before each part: {loads}.",
        table(("", "measured"), rows_of_set(result, images)),
        training_table(result),
    ]
    return "\n\n".join(parts)


def rows_of_set(result: Result, images: int) -> Iterator[tuple[str, str]]:
    """What the set takes on the disk, and how long making, opening and shuffling it takes."""
    packed = result["packing"]["figures"]
    yield "train.rec, train.idx", f"{packed['rec_bytes'] / GIGABYTE:.2f} GB, {packed['idx_bytes'] / MEGABYTE:.0f} MB"
    if "seconds" in packed:
        minutes, cpu_microseconds = packed["seconds"] / 60, 1e6 * packed["cpu_seconds"] / images
        yield (
            "packing",
            f"{minutes:.1f} min: {images / packed['seconds']:,.0f} images/s, {cpu_microseconds:.0f} µs of a core each",
        )
    yield from rows_of_opening(result["opening"]["figures"])
    first = result["first_batch"]["figures"]
    yield f"first batch of {first['images']}, from the start of the process", f"{first['from_start_seconds']:.2f} s"
    yield "the same, from the start of opening", f"{first['from_opening_seconds']:.2f} s"
    shuffled = result["shuffle"]["figures"]
    yield (
        "images that an epoch has exactly once",
        f"{shuffled['seen_once']:,} of {shuffled['images']:,}, in {shuffled['seconds']:.1f} s",
    )
    yield "mean way of an image by shuffling, of the set", f"{shuffled['displacement']:.4f}"


def rows_of_opening(openings: list[dict[str, float]]) -> Iterator[tuple[str, str]]:
    """The median, whether it will do, and the memory."""
    seconds = [each["seconds"] for each in openings]
    median = statistics.median(seconds)
    cpu_seconds = statistics.median(each["cpu_seconds"] for each in openings)
    met = "under" if median < LONGEST_OPENING_SECONDS else "**not** under"
    yield (
        f"opening, median of {len(seconds)} processes",
        f"{median:.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), {met} {LONGEST_OPENING_SECONDS:g} s; "
        f"{cpu_seconds:.2f} s of a core",
    )
    after, before = (statistics.median(each[f"{when}_bytes"] for each in openings) for when in ("after", "before"))
    yield "resident memory after opening", f"{after / MEGABYTE:.0f} MB, {before / MEGABYTE:.0f} MB before it"


def training_table(result: Result) -> str:
    """A row for each objective."""
    columns = ("", "steps", "images/s", "s a step", "least to most", "waiting for data")
    more = ("peak of a rank, GB", "its own, GB", "first step after", "loss, first tenth", "last tenth")
    return table((*columns, *more), [_training_row(name, result[name]["figures"]) for name in TITLES])


def _training_row(name: str, found: Result) -> tuple[str, ...]:
    return (
        f"{TITLES[name]}, batches of {found['batch']} on {len(found['peak_bytes_of_ranks'])} ranks",
        str(found["steps"]),
        f"{found['images_per_second']:,.0f}",
        f"{found['step_seconds']:.3g}",
        f"{found['least_step_seconds']:.3g} to {found['most_step_seconds']:.3g}",
        f"{100 * found['wait_share']:.1f} %",
        f"{max(found['peak_bytes_of_ranks']) / GIGABYTE:.2f}",
        f"{max(found['own_bytes_of_ranks']) / GIGABYTE:.2f}",
        f"{found['to_first_step_seconds']:.1f} s",
        f"{found['first_loss']:.3f}",
        f"{found['last_loss']:.3f}",
    )
