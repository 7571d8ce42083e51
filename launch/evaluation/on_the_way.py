"""The network of a run measured while it trains, and the checkpoint that is the best so far.

Every rank embeds its share of the images, so that none waits for another; the measures are bitwise the same on all
ranks, and so is what follows from them. Training goes on as if it had not been measured: the network's buffers, which
are averaged over the ranks for it, are each rank's own again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress

import torch

from launch.assembly.run import Run
from launch.assembly.run_folder import RunFolder
from launch.config.evaluation import LOWER_IS_BETTER, set_name
from launch.config.run import Config
from launch.evaluation.held_out import HeldOut, damage_found, open_identities, open_pair_set
from launch.evaluation.results import evaluate_backbone, measured, whole_records
from launch.evaluation.tables import print_places, print_results
from launch.resilience.stopping import GivenUp, StopRequest
from launch.units import seconds_text
from launch.writing import naming, write_text
from partial_fc import World
from partial_fc.checkpoint.layout import name_best, whole_checkpoints
from partial_fc.checkpoint.writing import Saved
from partial_fc.evaluation import Evaluation, PairEvaluation
from partial_fc.reports.json_lines import cut_torn_line
from partial_fc.reports.prometheus import PrometheusSink
from partial_fc.reports.step_report import Sink
from partial_fc.world import global_rank

Figures = dict[str, float]


def sets_to_measure(config: Config, held_out: HeldOut | None) -> dict[str, HeldOut]:
    """Every set of the run by its name: ``held_out``, which is data.evaluate, and evaluation.sets."""
    found = {} if held_out is None or config.data.evaluate is None else {set_name(config.data.evaluate): held_out}
    for path in config.evaluation.sets:
        if path.suffix.lower() == ".bin":
            opened = open_pair_set(path, config.data)
        else:
            opened = open_identities(path, config.data)
        if global_rank() == 0 and (said := damage_found(opened, path)) is not None:
            print(said, flush=True)
        found[set_name(path)] = opened
    return found


def evaluate_at_the_end(
    config: Config, parts: Run, held_out: HeldOut | None, world: World, device: torch.device, folder: RunFolder
) -> dict[str, Evaluation]:
    """The trained network's measures on data.evaluate, if any, by its name; and where everything lies is said."""
    if held_out is None or config.data.evaluate is None:
        if world.rank == 0:
            print_places(folder)
        return {}
    evaluation = evaluate_backbone(
        *(config, parts.backbone, held_out, world, device),
        metrics=folder.metrics,
        out=folder,
        flip=config.evaluation.flip,
        step=parts.total_steps,
    )
    if world.rank == 0:
        print_results(evaluation, held_out.seen, folder)
    return {set_name(config.data.evaluate): evaluation}


class Examiner:
    """Measures the network of ``parts`` on ``sets``; its methods are called on all ranks at the same step.

    Rank 0 prints the measures, keeps them in ``evaluations.jsonl`` and shows them at its endpoint, if ``sinks`` has it.
    ``save(step)`` begins a checkpoint, where the best measure needs one. ``stop`` ends an evaluation on the way.
    """

    def __init__(
        self,
        config: Config,
        sets: Mapping[str, HeldOut],
        parts: Run,
        world: World,
        device: torch.device,
        sinks: Sequence[Sink],
        save: Callable[[int], None],
        stop: StopRequest,
    ) -> None:
        self._config, self._sets, self._parts, self._save, self._stop = config, sets, parts, save, stop
        self._world, self._device = world, device
        self._folder = RunFolder(config.run_dir)
        self._endpoints = [sink for sink in sinks if isinstance(sink, PrometheusSink)]
        self._best: float | None = None
        self._best_step: int | None = None
        self._is_unknown_told = False
        if world.rank == 0:  # which decides for all: another node may see an older file
            self._take_up()
        self._name_when_whole()

    def on_the_way(self, done: int) -> None:
        """Measure all sets after step ``done``, while the training waits.

        The evaluation is given up where the ranks agree meanwhile to end: they may have less time than it takes.
        """
        if not self._measure(done) and self._world.rank == 0:
            write_text(self._folder.owed, f"{done}\n")
            print(
                f"step {done:,} is not measured, as the run was told to end; it will be when the run goes on",
                flush=True,
            )

    def make_up(self, done: int) -> None:
        """Measure the step ``done``, which the run goes on after, if that was given up: one all-reduce of a number.

        Tried once: a run that never lives as long as an evaluation takes goes on all the same.
        """
        is_owed = False
        if self._world.rank == 0 and self._folder.owed.exists():
            is_owed = self._folder.owed.read_text(encoding="utf-8").strip() == str(done)
            self._folder.owed.unlink()
        if self._world.all_sum(torch.tensor(int(is_owed), device=self._device)):
            self._parts.spent.spend("start")
            if not self._measure(done) and self._world.rank == 0:
                print(f"step {done:,} is not measured, as the run was told to end again", flush=True)

    def _measure(self, done: int) -> bool:
        """Measure all sets and note what is found; whether that was not given up."""
        self._parts.spent.spend("training")
        began, found = time.perf_counter(), None
        with ExitStack() as stack:
            for endpoint in self._endpoints:
                stack.enter_context(endpoint.evaluating())
            stack.enter_context(self._parts.state.with_averaged_buffers())
            stack.enter_context(suppress(GivenUp))
            found = {name: self._measured(held_out, self._stop) for name, held_out in self._sets.items()}
        self._parts.spent.spend("evaluation")
        if found is not None:
            self._note(done, found, time.perf_counter() - began)
        return found is not None

    def at_the_end(self, done: int, known: Mapping[str, Evaluation | PairEvaluation]) -> None:
        """Measure the sets that are not ``known``, with the averaged buffers that the network has by now."""
        began = time.perf_counter()
        others = {name: self._measured(held_out) for name, held_out in self._sets.items() if name not in known}
        self._note(done, {**known, **others}, time.perf_counter() - began if others else None)
        self._parts.saver.wait()

    def _measured(self, held_out: HeldOut, stop: StopRequest | None = None) -> Evaluation | PairEvaluation:
        parts, config = self._parts, self._config
        flip = config.evaluation.flip
        return measured(config, parts.backbone, held_out, self._world, self._device, flip=flip, stop=stop)[0]

    def _note(self, done: int, found: Mapping[str, Evaluation | PairEvaluation], seconds: float | None) -> None:
        figures = {
            f"{name}.{key}": value for name, evaluation in found.items() for key, value in measures(evaluation).items()
        }
        is_best = self._is_best(figures)
        if self._world.rank == 0:
            print(_sentence(done, figures, seconds, self._config.evaluation.best if is_best else None), flush=True)
            with naming(self._folder.evaluations), self._folder.evaluations.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": done, **figures}) + "\n")
            for endpoint in self._endpoints:
                endpoint.evaluated(figures)
        if is_best:
            self._keep(done)

    def _is_best(self, figures: Figures) -> bool:
        """Whether the measure that counts is the best so far, as rank 0 finds. One all-reduce of a number."""
        if (name := self._config.evaluation.best) is None:
            return False
        is_best = self._world.rank == 0 and self._beats_all(name, figures)
        return bool(self._world.all_sum(torch.tensor(int(is_best), device=self._device)))

    def _beats_all(self, name: str, figures: Figures) -> bool:
        """Whether ``name`` is better than ever before; it is then kept as such."""
        if name not in figures:
            if not self._is_unknown_told:
                print(
                    f"evaluation.best {name}: too few impostor pairs to tell; no checkpoint is kept for it", flush=True
                )
            self._is_unknown_told = True
            return False
        if self._best is not None and not _is_better(name, figures[name], self._best):
            return False
        self._best = figures[name]
        return True

    def _keep(self, done: int) -> None:
        """Have the checkpoint of ``done``, saved unless it is, named the best once it is whole."""
        self._best_step = done
        if done not in (self._parts.saver.last_step, self._parts.start_step):
            self._save(done)
        if self._world.rank == 0:
            name_best(self._folder.checkpoints, done)

    def _name_when_whole(self) -> None:
        """Name the best checkpoint from the thread that writes it, too: it may be whole only later."""
        others = self._parts.saver.on_saved

        def tell(saved: Saved) -> None:
            if saved.step == self._best_step:
                name_best(self._folder.checkpoints, saved.step)
            others(saved)

        self._parts.saver.on_saved = tell

    def _take_up(self) -> None:
        """Find the best of the evaluations so far whose checkpoint is still there, and let ``best`` point to it."""
        file, name = self._folder.evaluations, self._config.evaluation.best
        cut_torn_line(file)
        if name is None or not self._parts.start_step:
            return
        whole = {checkpoint.manifest().step for checkpoint in whole_checkpoints(self._folder.checkpoints)}
        records = [each for each in whole_records(file) if each["step"] in whole and name in each]
        by_step = {each["step"]: each[name] for each in records}
        if by_step:
            choice = min if _lower_is_better(name) else max
            self._best_step = choice(by_step, key=by_step.__getitem__)
            self._best = by_step[self._best_step]
            name_best(self._folder.checkpoints, self._best_step)


def measures(evaluation: Evaluation | PairEvaluation) -> Figures:
    """The measures of an evaluation by the names of ``evaluation.best``."""
    first = {"rank1": evaluation.rank1} if isinstance(evaluation, Evaluation) else {}
    if evaluation.kfold_accuracy is not None:
        first["accuracy"] = evaluation.kfold_accuracy.mean
    at_far = {f"tar_at_far_{far}": tar for far, tar in evaluation.tar_at_far.items()}
    return {**first, "eer": evaluation.eer, **at_far}


def _sentence(done: int, figures: Figures, seconds: float | None, best: str | None) -> str:
    """What a person reads: of each set its first measure."""
    firsts = {name.rpartition(".")[0]: name for name in reversed(figures)}
    told = ", ".join(
        f"{name} {figures[name]:.4f}{', the best so far' if name == best else ''}" for name in firsts.values()
    )
    if best is not None and best not in firsts.values():
        told += f", {best} {figures[best]:.4f}, the best so far"
    return f"step {done:,} measured{'' if seconds is None else f' in {seconds_text(seconds)}'}: {told}"


def _lower_is_better(name: str) -> bool:
    return name.rpartition(".")[2] in LOWER_IS_BETTER


def _is_better(name: str, value: float, than: float) -> bool:
    return value < than if _lower_is_better(name) else value > than
