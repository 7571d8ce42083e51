"""The lives of a batch, a label, a class row and a run: chains of the real functions, in their order."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.concepts.drawing import LIBRARIES, paper, tint
from launch.figure_style import INK, MUTED

COLUMNS = 3
WIDTH, HEIGHT, ACROSS, DOWN = 31.0, 8.6, 34.5, 13.0  # of a box, and from one to the next


class Station(NamedTuple):
    """One station of a chain: what happens, the function or class that does it, and what is there afterwards."""

    title: str
    code: str  # module:name
    then: str

    @property
    def library(self) -> str:
        """`partial_fc`, `data_pipeline` or `launch`."""
        return self.code.partition(".")[0]

    @property
    def shown(self) -> str:
        """The name in its library, without the library's own."""
        return self.code.partition(".")[2].replace(":", ".")

    def found(self) -> Any:
        """The function or class itself."""
        module, _, name = self.code.partition(":")
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found


BATCH = (
    Station("this rank's places", "data_pipeline.order.shuffled:rank_positions", "(n,) positions of step s"),
    Station("places to samples", "data_pipeline.order.shuffled:samples_at", "(epoch, sample), by arithmetic"),
    Station("an image is read", "data_pipeline.source:Source.read", "its encoded bytes"),
    Station("bad ones replaced", "data_pipeline.loader.bad_images:BadImages", "by rule, the same on any rank"),
    Station("changes drawn", "data_pipeline.augment.draws:Draws", "from (seed, epoch, sample)"),
    Station("decoded and changed", "data_pipeline.loader.feed:InFlight", "DALI's pixels, steps ahead"),
    Station("normalised", "data_pipeline.loader.dali_graph:normalised", "x / 127.5 − 1, (n, 3, H, W)"),
    Station("the network", "partial_fc.loop:train", "embeddings (n, D)"),
    Station("one batch of all ranks", "partial_fc.world:World.gather_rows", "unit embeddings (N, D)"),
    Station("the loss", "partial_fc.classifier:ShardedClassifier", "one mean over N images"),
    Station("slopes, block by block", "partial_fc.cosine_loss:CosineLoss", "a part of every gradient"),
    Station("the gradient goes home", "partial_fc.world:World.scatter_sum_rows", "summed, this rank's (n, D)"),
    Station("replicas are summed", "partial_fc.world:sum_gradients", "the network's gradient"),
    Station("the network moves", "launch.assembly.optimizer:optimizer", "the same weights on all ranks"),
    Station("it is saved", "partial_fc.checkpoint.saving:Saver", "step-…/backbone.pt"),
)
LABEL = (
    Station("the set is opened", "data_pipeline.formats.by_path:source_at", "the path tells the form"),
    Station("four bytes are read", "data_pipeline.formats.recordio.record_file:RecordFile", "float32, exact to 2^24"),
    Station("checked", "data_pipeline.formats.recordio.source:RecordSource", "int64: whole, not negative"),
    Station("sets are joined", "data_pipeline.sets.joined:JoinedSource", "by offset, or by name"),
    Station("gaps are closed", "data_pipeline.sets.selected:SelectedSource", "0 .. C − 1"),
    Station("beside its image", "data_pipeline.loader.decoded_batches:Batch", "(n,) int64, past DALI"),
    Station("on every rank", "partial_fc.world:World.gather_rows", "(N,) of the global batch"),
    Station("refused if out of range", "partial_fc.labels:LabelCheck.check", "on all ranks alike"),
    Station("its owner", "partial_fc.rows.sharding:owned_targets", "one rank, and a column there"),
    Station("the target's cosine", "partial_fc.sweeps.sweep:Sweep.own_target_cosines", "from its owner to all"),
    Station("the pull", "partial_fc.slopes:Slopes", "the slope at the target"),
    Station("whose row it is", "data_pipeline.sets.identity_keys:identity_keys", "saved beside the row"),
)
ROW = (
    Station("it belongs to one rank", "partial_fc.rows.sharding:class_range", "contiguous shards"),
    Station("it begins", "partial_fc.rows.sampling:initial_rows", "a function of (seed, class id)"),
    Station("its optimizer state", "partial_fc.rows.optimizers:RowOptimizer.attach", "on the same rank"),
    Station("still of unit length?", "partial_fc.rows.known_rows:KnownRows.known", "else it is made so"),
    Station("does it take part?", "partial_fc.rows.sampling:drawn_columns", "always at sample_rate 1"),
    Station("read, with its block", "partial_fc.sweeps.sweep:Sweep.block_width", "(b, D) in the cache"),
    Station("sums over the classes", "partial_fc.slopes:Cosines.sum_over_negatives", "of cosines (N, b)"),
    Station("loss and slopes", "partial_fc.objectives:Objective", "the same on all ranks"),
    Station("its gradient", "partial_fc.sweeps.sweep:Sweep.row_gradients", "(b, D), tangent to the sphere"),
    Station("it moves", "partial_fc.rows.optimizers:RowOptimizer.update", "and is at unit length again"),
    Station("it is saved", "partial_fc.checkpoint.saving:Saver", "rank-…-of-….safetensors"),
    Station("and taken up again", "partial_fc.checkpoint.loading:load_head", "by any rank, under any label"),
)
RUN = (
    Station("the command", "launch.cli:main", "no torch is imported yet"),
    Station("the configuration", "launch.config.loading:load_config", "typed; refused in one line"),
    Station("the ranks start", "launch.processes:run_ranks", "torchrun's agent"),
    Station("each rank", "launch.train:run", "the same Config"),
    Station("the run's folder", "launch.assembly.run_folder:RunFolder", "locked: one run at a time"),
    Station("hangs are ended", "launch.resilience.watchdog:Watchdog", "from here on"),
    Station("the sets of images", "launch.assembly.data:open_training_data", "before any rank waits"),
    Station("the ranks meet", "partial_fc.world:process_group", "a World of all ranks"),
    Station("do they mean the same?", "launch.resilience.agreement:agree", "else all stop"),
    Station("the parts are made", "launch.assembly.run:run", "a Run, from its sections"),
    Station("the loop", "partial_fc.loop:train", "steps, reports"),
    Station("checkpoints", "partial_fc.checkpoint.saving:Saver.save", "on the way and at the end"),
    Station("the measures", "launch.evaluation.results:evaluate_backbone", "report.html, evaluation.json"),
)
LIVES = {"batch": BATCH, "label": LABEL, "class row": ROW, "run": RUN}


def draw_batch(figure: Figure) -> None:
    """From a step's number to a saved network."""
    _draw(figure, BATCH)


def draw_label(figure: Figure) -> None:
    """From the bytes of a record to the pull on an image."""
    _draw(figure, LABEL)


def draw_row(figure: Figure) -> None:
    """From nothing to a checkpoint, and on."""
    _draw(figure, ROW)


def draw_run(figure: Figure) -> None:
    """From a command to the report."""
    _draw(figure, RUN)


def height_inches(stations: tuple[Station, ...]) -> float:
    """Of a picture that has the usual width."""
    rows = -(-len(stations) // COLUMNS)
    return 0.073 * (rows * DOWN + 0.5)


def draw_small_lives(figure: Figure) -> None:
    """A class row's life in five words."""
    axes = figure.subplots()
    paper(axes, 60, 30)
    for place, (word, library) in enumerate(
        (("file", "data_pipeline"), ("batch", "data_pipeline"), ("loss", "partial_fc"), ("gradient", "partial_fc"))
    ):
        x = 0.5 + 15 * place
        _frame(axes, x, 6, 11.5, 7, library)
        axes.text(x + 5.75, 9.5, word, ha="center", va="center", fontsize=8.5)
        if place:
            _arrow(axes, (x - 3.2, 9.5), (x - 0.3, 9.5))
    _frame(axes, 41, 20, 16, 7, "launch")
    axes.text(49, 23.5, "checkpoint", ha="center", va="center", fontsize=8.5)
    _arrow(axes, (51.2, 13.4), (49, 19.7))


def _draw(figure: Figure, stations: tuple[Station, ...]) -> None:
    axes = figure.subplots()
    rows = -(-len(stations) // COLUMNS)
    paper(axes, 100.5, rows * DOWN + 0.5)
    libraries = list(dict.fromkeys(station.library for station in stations))
    for place, library in enumerate(libraries):
        axes.text(0.2 + 17 * place, 1.6, library, color=LIBRARIES[library], fontsize=9, weight="bold", va="center")
    for number, station in enumerate(stations):
        x, y = _corner(number)
        _frame(axes, x, y, WIDTH, HEIGHT, station.library)
        axes.text(x + 1.2, y + 1.9, f"{number + 1}  {station.title}", fontsize=9, weight="bold", va="center")
        code = station.shown
        size = min(7.4, 245 / len(code))  # what fits into the box
        colour = LIBRARIES[station.library]
        axes.text(x + 1.2, y + 4.5, code, fontsize=size, family="monospace", color=colour, va="center")
        axes.text(x + 1.2, y + 6.9, station.then, fontsize=8.5, color=INK, va="center")
        if number + 1 < len(stations):
            _connect(axes, number)


def _corner(number: int) -> tuple[float, float]:
    row, column = divmod(number, COLUMNS)
    return 0.2 + ACROSS * column, 3.6 + DOWN * row


def _connect(axes: Axes, number: int) -> None:
    x, y = _corner(number)
    if (number + 1) % COLUMNS:
        _arrow(axes, (x + WIDTH + 0.4, y + HEIGHT / 2), (x + ACROSS - 0.4, y + HEIGHT / 2))
        return
    below_x, below_y = _corner(number + 1)
    middle = y + HEIGHT + (DOWN - HEIGHT) / 2
    start, end = x + WIDTH / 2, below_x + WIDTH / 2
    axes.plot([start, start, end, end], [y + HEIGHT, middle, middle, middle], color=MUTED, linewidth=1.0)
    _arrow(axes, (end, middle - 0.1), (end, below_y - 0.2))


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.0, "mutation_scale": 8, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=look)


def _frame(axes: Axes, x: float, y: float, width: float, height: float, library: str) -> None:
    colour = LIBRARIES[library]
    axes.add_patch(Rectangle((x, y), width, height, facecolor=tint(colour, 0.07), edgecolor=colour, linewidth=1.0))
