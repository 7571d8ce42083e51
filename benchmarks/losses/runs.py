"""The runs of the loss comparison: a table, most informative first.

Every run is `configs/omniglot.yaml` at 28 pixels on one short schedule; only what stands in the table differs. A
softmax loss has slopes of up to its scale, P2SGrad of up to its slope scale, and `RowSGD` steps a row by learning rate
times slope: so by default the rate of the rows is `ROW_STEP / scale`, and a loss is not judged by the length of its
steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from partial_fc.functional.adacos import fixed_scale

EPOCHS = 2.0  # of 77,120 images: about 3 minutes a run on one core
IMAGE_SIZE = 28  # half the pixels of the shipped 40: twice as many runs
WARMUP_SHARE = 0.25  # of the epochs
REPORT_EVERY_STEPS = 10
NUM_CLASSES = 3856  # 964 characters in four rotations
ADACOS_SCALE = fixed_scale(NUM_CLASSES)  # 11.68
ROW_STEP = 0.005 * ADACOS_SCALE  # radians per image at full slope: the rate found good for AdaCos
LOSSES, RATES, NOISE = "losses", "rates", "noise"


@dataclass(frozen=True)
class Run:
    """One row of the table: a loss, its learning rates, the share of wrong labels, and the seeds worth the time."""

    name: str
    label: str
    objective: Mapping[str, object]
    row_learning_rate: float
    group: str = LOSSES
    backbone_learning_rate: float = 1.2
    label_noise: float = 0.0
    seeds: tuple[int, ...] = (0,)

    def settings(self, seed: int, epochs: float = EPOCHS) -> dict[str, object]:
        """What differs from `configs/omniglot.yaml`, by dotted key; no path is among it."""
        return {
            "seed": seed,
            "objective": dict(self.objective),
            "data.label_noise": self.label_noise,
            "data.image_size": IMAGE_SIZE,
            "classifier.learning_rate": self.row_learning_rate,
            "optimizer.learning_rate": self.backbone_learning_rate,
            "schedule.epochs": epochs,
            "schedule.warmup_epochs": WARMUP_SHARE * epochs,
            "report.every_steps": REPORT_EVERY_STEPS,
            "report.prometheus": False,
        }


def with_rows(run: Run, rate: float) -> Run:
    """`run` with another learning rate of the class rows."""
    return replace(run, name=f"{run.name}-rows{rate:g}", row_learning_rate=rate, group=RATES)


def with_backbone(run: Run, rate: float) -> Run:
    """`run` with another learning rate of the backbone."""
    return replace(run, name=f"{run.name}-backbone{rate:g}", backbone_learning_rate=rate, group=RATES)


def with_noise(run: Run, share: float) -> Run:
    """`run` on labels of which a share is wrong."""
    return replace(run, name=f"{run.name}-noise{round(100 * share)}", label_noise=share, group=NOISE)


def plan(runs: Iterable[Run], seeds: Sequence[int] | None = None) -> list[tuple[Run, int]]:
    """(run, seed) in the order to run them: the first seed of everything, then the next; each run's own seeds
    unless others are given.
    """
    chosen = list(runs)
    order = sorted({seed for run in chosen for seed in run.seeds}) if seeds is None else seeds
    return [(run, seed) for seed in order for run in chosen if seeds is not None or seed in run.seeds]


def _row_rate(scale: float) -> float:
    return float(f"{ROW_STEP / scale:.3g}")


def _p2sgrad(name: str, label: str, *, slope_scale: object = "adacos", **settings: object) -> Run:
    scale = slope_scale if isinstance(slope_scale, float) else ADACOS_SCALE
    objective = {"name": "p2sgrad", "slope_scale": slope_scale, **settings}
    return Run(f"p2sgrad-{name}", f"P2SGrad {label}", objective, _row_rate(scale))


def _softmax(paper: str, scale: float, margin: float | None = None, **settings: object) -> Run:
    kind = {"NormFace": "cosine_softmax"}.get(paper, paper.lower())
    numbers = [scale] if margin is None else [scale, margin]
    objective = {"name": kind, "scale": scale, **({} if margin is None else {"margin": margin}), **settings}
    name = "-".join([paper.lower(), *(f"{number:g}" for number in numbers)])
    label = f"{paper} {scale:g}" if margin is None else f"{paper} ({scale:g}, {margin:g})"
    return Run(name, label, objective, _row_rate(scale))


def _adacos(word: str, *, dynamic: bool) -> Run:
    return Run(f"adacos-{word}", f"AdaCos {word}", {"name": "adacos", "dynamic": dynamic}, _row_rate(ADACOS_SCALE))


_P2SGRAD, _KAPPA_03, *_OTHER_KAPPAS = (
    _p2sgrad(f"kappa{kappa:g}", f"κ = {kappa:g}", kappa=kappa) for kappa in (0.1, 0.3, 0.03, 1.0)
)
_LONG_STEPS = with_rows(_p2sgrad("kappa0.2", "κ = 0.2", kappa=0.2), 0.08)  # P2SGrad at the best found in two epochs
_DYNAMIC, _FIXED = _adacos("dynamic", dynamic=True), _adacos("fixed", dynamic=False)
_COSFACE, _ARCFACE = _softmax("CosFace", 30.0, 0.35), _softmax("ArcFace", 30.0, 0.5)
_STRAIGHT_THROUGH = replace(
    _softmax("ArcFace", 30.0, 0.5, straight_through=True),
    name="arcface-30-0.5-straight",
    label="ArcFace (30, 0.5), straight-through",
)
_MAIN = (_P2SGRAD, _DYNAMIC, _ARCFACE, _COSFACE)
_THREE = (0, 1, 2)

RUNS: tuple[Run, ...] = (
    replace(_P2SGRAD, seeds=_THREE),
    replace(_DYNAMIC, seeds=_THREE),
    _ARCFACE,
    _COSFACE,
    _p2sgrad("lambda1", "λ = 1", inter_class_weight=1.0),
    _FIXED,
    _KAPPA_03,
    *_OTHER_KAPPAS,
    *(with_noise(run, 0.4) for run in _MAIN),
    _softmax("ArcFace", 64.0, 0.5),
    _softmax("CosFace", 64.0, 0.4),
    _softmax("NormFace", 30.0),
    _softmax("NormFace", 64.0),
    *(with_rows(run, 0.02) for run in (_DYNAMIC, _P2SGRAD)),
    *(with_backbone(run, 0.4) for run in (_DYNAMIC, _P2SGRAD)),
    _p2sgrad("lambda1-slope1", "λ = 1, slope scale 1 (the paper)", inter_class_weight=1.0, slope_scale=1.0),
    *(_p2sgrad(f"kappa0.1-slope{s:g}", f"κ = 0.1, slope scale {s:g}", slope_scale=s) for s in (30.0, 1.0)),
    _STRAIGHT_THROUGH,
    *(with_noise(run, 0.2) for run in _MAIN),
    replace(_LONG_STEPS, seeds=_THREE),
    with_rows(_DYNAMIC, 0.01),
    with_rows(_P2SGRAD, 0.08),
    with_noise(_LONG_STEPS, 0.4),
    with_rows(_KAPPA_03, 0.16),
    with_noise(_LONG_STEPS, 0.2),
)
