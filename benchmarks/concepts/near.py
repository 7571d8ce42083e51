"""The near road: which cosines lie beyond chance, how far the look can be off, and what is left to do."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.concepts.drawing import BLUE, GREEN, GREY, RED, tint
from benchmarks.concepts.trained import BINS, HIGHEST, LOWEST, Looked, by_bfloat16, by_int8, kept, looked
from launch.figure_style import INK, MUTED
from partial_fc.functional.p2sgrad import chance_cosine
from partial_fc.rows.sampling import initial_rows

LOOK_C, LOOK_D, LOOK_N = 20_000, 256, 160  # of the look that is drawn pair by pair


@cache
def random_rows() -> Looked:
    """As many random directions as the trained network has classes, and embeddings in random directions."""
    like = kept()
    unit_ND = initial_rows(range(like.images), like.embedding_dim, seed=1)
    labels_N = torch.arange(like.images) % like.num_classes
    return looked(unit_ND, initial_rows(range(like.num_classes), like.embedding_dim, seed=0), labels_N)


def draw_cosines(figure: Figure) -> None:
    """Two histograms on one axis of cosines: random rows above, a trained network's below."""
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, found, title in (
        (upper, random_rows(), "random rows and embeddings"),
        (lower, kept(), "a network after three epochs of Omniglot"),
    ):
        _draw_histogram(axes, found)
        near = found.near_pairs / found.images
        axes.set_title(f"{title}: {near:.3g} of {found.num_classes - 1:,} other classes an image beyond τ")
        axes.set_ylabel("classes an image")
        axes.text(found.chance + 0.015, 60, f"τ = {found.chance:.3f}", color=INK, fontsize=9)
    _draw_targets(lower, kept())
    lower.set_xlabel("cosine between an image and a class")


def draw_small_cosines(figure: Figure) -> None:
    """The trained network's alone."""
    axes = figure.subplots()
    _draw_histogram(axes, kept())
    axes.text(kept().chance + 0.03, 60, "τ: only these push", color=RED, fontsize=9)
    axes.set_xlabel("cosine")
    axes.set_xticks((-0.5, 0.0, 0.5))


def _draw_histogram(axes: Axes, found: Looked) -> None:
    edges = np.linspace(LOWEST, HIGHEST, BINS + 1)
    shares = np.array(found.others) / found.images
    is_beyond = edges[:-1] >= found.chance
    for shown, colour in ((~is_beyond, tint(BLUE, 0.5)), (is_beyond, RED)):
        axes.stairs(np.where(shown, shares, 0.0), edges, fill=True, color=colour)
    axes.axvline(found.chance, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.set_yscale("log")
    axes.set_ylim(0.003, 400)
    axes.set_xlim(-0.65, 0.85)


def _draw_targets(axes: Axes, found: Looked) -> None:
    edges = np.linspace(LOWEST, HIGHEST, BINS + 1)
    axes.stairs(np.array(found.targets) / found.images, edges, color=GREEN, linewidth=1.4)
    axes.text(0.97, 0.62, "their own classes", color=GREEN, fontsize=9, ha="right", transform=axes.transAxes)


def draw_look(figure: Figure) -> None:
    """Every pair near τ by its cosine and by what the look gives, in bfloat16 and in int8."""
    unit_ND = initial_rows(range(LOOK_N), LOOK_D, seed=1)
    rows_CD = initial_rows(range(LOOK_C), LOOK_D, seed=0)
    cosines_CN, chance = rows_CD.double() @ unit_ND.double().T, chance_cosine(LOOK_C, LOOK_D)
    is_shown = cosines_CN > chance - 0.05
    cosines, near = cosines_CN[is_shown].numpy(), int((cosines_CN > chance).sum())
    for axes, name, (product_CN, images, least_C) in zip(
        figure.subplots(1, 2, sharey=True),
        ("bfloat16", "int8"),
        (by_bfloat16(unit_ND, rows_CD), by_int8(unit_ND, rows_CD)),
        strict=True,
    ):
        products = product_CN[is_shown].numpy()
        is_candidate = (product_CN >= least_C.unsqueeze(1))[is_shown].numpy()
        for chosen, colour in (
            (~is_candidate, GREY),
            (is_candidate & (cosines <= chance), BLUE),
            (cosines > chance, RED),
        ):
            axes.plot(cosines[chosen], products[chosen], ".", color=colour, markersize=5, markeredgewidth=0)
        axes.axvline(chance, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        lowest, highest = least_C.min().item(), least_C.max().item()  # int8: each class has a bound of its own
        axes.axhspan(lowest, highest, color=INK, alpha=0.15, linewidth=0)
        axes.axhline(least := least_C.median().item(), color=INK, linewidth=1.0)
        axes.set_title(f"{name}: τ − bound = {least:.3f}\n{len(images):,} candidates, {near} beyond τ", fontsize=9.5)
        axes.set_xlabel("cosine")
        axes.text(chance + 0.002, cosines.min() + 0.001, f"τ = {chance:.3f}", fontsize=9)
    figure.axes[0].set_ylabel("the look's product")


def counts() -> dict[str, tuple[float, float]]:
    """For each image of a batch: pairs by step of the road, of random rows and of the trained network."""
    both = random_rows(), kept()
    return {
        "looked at: all classes": _each(both, [each.num_classes * each.images for each in both]),
        "candidates of an int8 look": _each(both, [each.candidates["int8"] for each in both]),
        "candidates of a bfloat16 look": _each(both, [each.candidates["bfloat16"] for each in both]),
        "beyond τ": _each(both, [each.near_pairs for each in both]),
    }


def _each(found: tuple[Looked, Looked], numbers: list[int]) -> tuple[float, float]:
    return numbers[0] / found[0].images, numbers[1] / found[1].images


def draw_counts(figure: Figure) -> None:
    """Those counts as bars on a logarithmic axis."""
    axes = figure.subplots()
    for place, numbers in enumerate(counts().values()):
        for number, offset, colour in zip(numbers, (-0.2, 0.2), (tint(BLUE, 0.5), RED), strict=True):
            axes.barh(place + offset, number, height=0.36, color=colour)
            text = f"{number:,.0f}" if number >= 100 else f"{number:.2g}"
            axes.text(number * 1.1, place + offset, text, va="center")
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xlim(0.05, 40_000)
    axes.set_yticks(range(len(counts())), list(counts()))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("pairs for each image of the batch")
    axes.text(30_000, 2.8, "random rows", color=BLUE, ha="right", fontsize=9.5)
    axes.text(30_000, 3.2, "trained network", color=RED, ha="right", fontsize=9.5)
    axes.tick_params(axis="y", colors=MUTED)
