"""The runs that try what the papers claim: one thing varied at a time.

Every run but those of group IDENTITIES is `configs/omniglot.yaml` at 20 pixels and EPOCHS epochs of all its images. A
class row moves by learning rate times slope and a softmax's slopes are as long as its scale, so the rate of the rows is
the loss's own `row_step` divided by the scale. The backbone's rate follows the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.losses.runs import Run

SIZE = 20
EPOCHS, IMAGES_PER_IDENTITY = 2.0, 20
BATCH, BACKBONE_RATE = 256, 1.2
SEEDS = (0, 1, 2)
SCALE, MARGIN, FEW, SAMPLED, BATCHES, IDENTITIES = "scale", "margin", "few", "sampled", "batch", "identities"
MADE_IMAGES, MADE_HELD_OUT = 200_000, 500  # the drawn people of group IDENTITIES


class Loss(NamedTuple):
    """A loss at its best row rate of those tried in `runs.json`: `row_step` is that rate times the scale.

    Of P2SGrad κ = 0.2 one rate was tried there; NormFace takes ArcFace's. `more` are settings by dotted
    key.
    """

    label: str
    objective: Mapping[str, Any]
    row_step: float
    scale: float = 1.0
    more: Mapping[str, Any] = {}

    def run(self, name: str, group: str, varied: float, **others: Any) -> Run:
        """This loss in one run of a group."""
        rate = float(f"{self.row_step / self.scale:.3g}")
        more = {**self.more, **others.pop("more", {})}
        common: dict[str, Any] = {"varied": varied, "image_size": SIZE, "seeds": SEEDS, "more": more}
        return Run(name, self.label, group, self.objective, rate, **common, **others)


def margin_loss(name: str, scale: float, margin: float | None = None) -> Loss:
    """ArcFace, CosFace or (without a margin) NormFace."""
    label, row_step = {
        "arcface": ("ArcFace", 0.24),
        "cosface": ("CosFace", 0.12),
        "cosine_softmax": ("NormFace", 0.24),
    }[name]
    given = {} if margin is None else {"margin": margin}
    return Loss(label, {"name": name, "scale": scale, **given}, row_step, scale)


BEYOND = Loss("P2SGrad beyond chance", {"name": "p2sgrad", "negatives": "beyond_chance", "pull": "steady"}, 0.05)
BALANCED = Loss("P2SGrad κ = 0.2", {"name": "p2sgrad", "slope_scale": "adacos", "kappa": 0.2}, 0.08)
ADACOS = Loss("AdaCos", {"name": "adacos"}, 0.01)
ARCFACE = margin_loss("arcface", 30.0, 0.5)
CLIPPED = BEYOND._replace(label="P2SGrad beyond chance, clipped", more={"classifier.clip": 0.5})
FREE = {"beyond": BEYOND, "clipped": CLIPPED, "p2sgrad": BALANCED, "adacos": ADACOS}
SLOWER = BEYOND._replace(label="P2SGrad beyond chance, slower rows")
COMPARED = {"beyond": BEYOND, "adacos": ADACOS, "arcface": ARCFACE}


def _scales_and_margins() -> list[Run]:
    """Losses with something to tune, along each of it, and those with nothing, once."""
    runs = [loss.run(f"claims-{name}", SCALE, 0.0) for name, loss in FREE.items()]
    for scale in (30.0, 10.0, 64.0):
        runs.append(margin_loss("cosine_softmax", scale).run(f"scale-normface-{scale:g}", SCALE, scale))
        runs.append(margin_loss("cosface", scale, 0.35).run(f"scale-cosface-{scale:g}", SCALE, scale))
        runs.append(margin_loss("arcface", scale, 0.5).run(f"scale-arcface-{scale:g}", SCALE, scale))
    for name, margins in (("cosface", (0.1, 0.2, 0.5)), ("arcface", (0.2, 0.35, 0.7))):
        runs += [margin_loss(name, 30.0, margin).run(f"margin-{name}-{margin:g}", MARGIN, margin) for margin in margins]
    return runs


def _few_images() -> list[Run]:
    """2, 5 and 10 images of each identity, as many steps as with 20."""
    return [
        loss.run(
            f"few-{name}-{images}", FEW, images, train=f"few-{images}", epochs=EPOCHS * IMAGES_PER_IDENTITY / images
        )
        for images in (5, 2, 10)
        for name, loss in COMPARED.items()
    ]


def _sampled() -> list[Run]:
    """A share of the classes in each step.

    Beyond chance a drawn class counts 1/rate times, and its row steps as much farther: so also with a rate of the rows
    that is the share's part of the usual one, and with clipped rows.
    """
    return [
        loss.run(f"sampled-{name}-{rate:g}", SAMPLED, rate, more={"classifier.sample_rate": rate})
        for rate in (0.1, 0.3)
        for name, loss in {**COMPARED, "beyond-slower": SLOWER._replace(scale=1 / rate), "clipped": CLIPPED}.items()
    ]


def _batches() -> list[Run]:
    """A quarter and four times the batch, the backbone's rate with its root, the same images in all.

    A row is pushed by each image that is near it, so by four times as many: with slower rows as well, and with clipped
    ones.
    """
    return [
        loss.run(
            f"batch-{name}-{batch}",
            BATCHES,
            batch,
            backbone_learning_rate=BACKBONE_RATE * (batch / BATCH) ** 0.5,
            more={"schedule.batch_size": batch},
        )
        for batch in (64, 1024)
        for name, loss in {
            **COMPARED,
            "beyond-slower": SLOWER._replace(scale=batch / BATCH),
            "clipped": CLIPPED,
        }.items()
        if batch > BATCH or loss.label != SLOWER.label
    ]


def _identities() -> list[Run]:
    """1,000 to 100,000 drawn people, of 200,000 images in all, seen once."""
    return [
        loss.run(
            f"identities-{name}-{identities}",
            IDENTITIES,
            identities,
            train=f"people-{identities}",
            evaluate="people-held-out",
            epochs=1.0,
            more={"data.fill": 0, "classifier.products": "bfloat16"},
        )
        for identities in (1_000, 10_000, 100_000)
        for name, loss in COMPARED.items()
    ]


CLAIMS: tuple[Run, ...] = (*_scales_and_margins(), *_few_images(), *_sampled(), *_batches(), *_identities())
