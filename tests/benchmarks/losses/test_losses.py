"""The loss comparison: its table of runs, what it keeps, what it runs again, and what is drawn from it."""

import contextlib
import io
import itertools
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.losses import __main__ as losses
from benchmarks.losses import glance, plots
from benchmarks.losses.results import Curve, Result, curve, mean_and_spread, read_results, tables
from benchmarks.losses.runs import ADACOS_SCALE, LOSSES, NUM_CLASSES, ROW_STEP, RUNS, Run, plan
from benchmarks.losses.slopes import SlopeLine, slope_lines, slopes_at_target
from benchmarks.results import read_json, write_json
from data_pipeline.formats.recordio.writer import RecordWriter
from data_pipeline.sets.noisy import NoisyLabels
from launch import assembly
from launch.config.loading import load_config

BY_NAME = {run.name: run for run in RUNS}


def result(run: Run, seed: int = 0, *, rank1: float | None = 0.8, last_degrees: float = 40.0, steps: int = 3) -> Result:
    """A made-up result; no `rank1`: a run that diverged."""
    course: list[float | None] = [9.0, 8.0, 7.0]
    angles: list[float | None] = [90.0, 70.0, last_degrees]
    evaluation = {"rank1": rank1, "eer": 0.05, "tar_at_far": {"1e-1": 0.9, "1e-2": 0.7}, "counts": {"images": 9}}
    return Result(
        name=run.name,
        label=run.label,
        group=run.group,
        seed=seed,
        outcome="diverged" if rank1 is None else "finished",
        message="",
        settings=run.settings(seed),
        evaluation=None if rank1 is None else evaluation,
        curve=Curve([10, 20, 30][:steps], course[:steps], [None] * steps, angles[:steps]),
        seconds=180.0,
        machine={"cores": 2},
    )


def result_path(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name}-seed{seed}.json"


def write_result(kept: Result, folder: Path) -> Path:
    path = result_path(folder, kept.name, kept.seed)
    write_json(asdict(kept), path)
    return path


def main_of(runs: list[Run], *words: str) -> int:
    """The exit code of the comparison where its table has these runs, one seed each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "RUNS", [replace(run, seeds=(0,)) for run in runs])
        return losses.main(words)


def to_do(runs: list[Run], out: Path) -> int:
    """How many runs are still to do, as `--list` tells it."""
    with contextlib.redirect_stdout(io.StringIO()) as told:
        assert main_of(runs, "--out", str(out), "--list") == 0
    return int(told.getvalue().splitlines()[-1].split()[0])


def _overrides(run: Run, data: Path, seed: int = 3) -> list[str]:
    words = losses.words(run.settings(seed), data, Path("run"), "auto")
    return [word for flag, word in itertools.pairwise(words) if flag == "--set"]


def test_one_run_alone_is_named_as_the_list_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert losses.main(["--out", str(tmp_path), "--only", "adacos-fixed-seed0", "--list"]) == 0
    assert "1 of" in capsys.readouterr().out
    assert losses.main(["--out", str(tmp_path), "--only", "adacos", "--list"]) == 2
    assert "there is no run adacos; --list names them" in capsys.readouterr().err


# The table of runs


def test_every_run_has_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(RUNS)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_every_run_is_a_configuration_the_trainer_takes(run: Run) -> None:
    config = load_config(losses.CONFIG, _overrides(run, Path("data"), seed=2))
    assembly.objective(config.objective, NUM_CLASSES)
    assert config.objective.name == run.objective["name"]
    assert config.classifier.learning_rate == run.row_learning_rate
    assert (config.seed, config.data.label_noise) == (2, run.label_noise)
    assert config.data.train == Path("data/background").resolve()


def test_rows_step_equally_far_under_every_loss_unless_the_rate_is_what_is_tried() -> None:
    for run in RUNS:
        if run.group == LOSSES:
            scale = run.objective.get("scale", run.objective.get("slope_scale", ADACOS_SCALE))
            number = ADACOS_SCALE if isinstance(scale, str) else float(str(scale))
            assert run.row_learning_rate * number == pytest.approx(ROW_STEP, rel=2e-3)


def test_one_seed_of_everything_comes_before_any_second_seed() -> None:
    planned = plan(RUNS)
    seeds = [seed for _, seed in planned]
    assert seeds == sorted(seeds)
    first = [run for run, seed in planned if seed == 0]
    assert first == list(RUNS)
    assert len({(run.name, seed) for run, seed in planned}) == len(planned)


# What is kept


def test_a_result_reads_back_as_it_was_written(tmp_path: Path) -> None:
    kept = result(BY_NAME["adacos-fixed"], seed=1)
    assert read_json(write_result(kept, tmp_path / "new"), Result) == kept


def test_a_result_that_cannot_be_written_leaves_no_file_under_its_name(tmp_path: Path) -> None:
    bad = replace(result(BY_NAME["adacos-fixed"]), seconds=math.nan)
    with pytest.raises(ValueError, match="JSON"):
        write_result(bad, tmp_path)
    assert not result_path(tmp_path, "adacos-fixed", 0).exists()


def test_a_file_torn_in_writing_is_neither_a_result_nor_in_the_way(tmp_path: Path) -> None:
    run = BY_NAME["adacos-fixed"]
    whole = write_result(result(run), tmp_path)
    torn = whole.with_name(f"{whole.name}.77.partial")
    torn.write_bytes(whole.read_bytes()[:100])
    whole.unlink()
    assert read_results(tmp_path) == []
    assert to_do([run], tmp_path) == 1
    write_result(result(run), tmp_path)
    assert read_results(tmp_path) == [result(run)]


def test_a_finished_or_diverged_run_is_not_run_again(tmp_path: Path) -> None:
    fixed, dynamic, normface = (BY_NAME[name] for name in ("adacos-fixed", "adacos-dynamic", "normface-30"))
    write_result(result(fixed), tmp_path)
    write_result(result(dynamic, rank1=None), tmp_path)
    assert [to_do([run], tmp_path) for run in (fixed, dynamic, normface)] == [0, 0, 1]


def test_with_every_result_there_the_sweep_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(result(BY_NAME["adacos-fixed"]), tmp_path)
    before = result_path(tmp_path, "adacos-fixed", 0).stat()
    assert main_of([BY_NAME["adacos-fixed"]], "--out", str(tmp_path), "--data", str(tmp_path / "absent")) == 0
    assert "1 of 1 runs are in" in capsys.readouterr().out
    assert result_path(tmp_path, "adacos-fixed", 0).stat() == before


def test_results_of_another_schedule_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_result(result(BY_NAME["adacos-fixed"]), tmp_path)
    words = ["--out", str(tmp_path), "--data", "absent", "--epochs", "3"]
    assert main_of([BY_NAME["adacos-fixed"]], *words) == 2
    said = capsys.readouterr().err
    assert str(path) in said
    assert "schedule.epochs is 2.0 there and 3.0 here" in said


def test_a_damaged_result_is_refused_by_name(tmp_path: Path) -> None:
    path = result_path(tmp_path, "adacos-fixed", 0)
    path.write_text('{"name": "adacos-fixed"')
    with pytest.raises(ValueError, match=r"adacos-fixed-seed0\.json is no result"):
        read_results(tmp_path)


def test_a_long_curve_is_thinned_and_keeps_both_ends() -> None:
    metrics = [
        {"step": step, "loss": step / 7, "scale": None, "median_target_angle_radians": math.pi / 3}
        for step in range(10, 10_010, 10)
    ]
    thin = curve(metrics)
    assert len(thin.step) == 60
    assert (thin.step[0], thin.step[-1]) == (10, 10_000)
    assert sorted(set(thin.step)) == thin.step
    assert set(thin.median_target_angle_degrees) == {60.0}
    assert curve(metrics[:5]).step == [10, 20, 30, 40, 50]


# The real trainer


@pytest.fixture(scope="module")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six classes of three noisy pictures each, twice: what `make omniglot` makes, but small."""
    folder = tmp_path_factory.mktemp("characters")
    random = np.random.default_rng(0)
    for name in ("background", "evaluation"):
        (folder / name).mkdir()
        with RecordWriter(folder / name / "train.rec") as writer:
            for label, _ in itertools.product(range(6), range(3)):
                file = io.BytesIO()
                Image.fromarray(random.integers(0, 256, (32, 32), dtype=np.uint8)).save(file, "PNG")
                writer.append(label, file.getvalue())
    return folder


def test_the_trainer_opens_its_data_with_the_wrong_labels_that_a_run_asks_for(characters: Path) -> None:
    runs = replace(BY_NAME["adacos-fixed"], label_noise=0.4), BY_NAME["adacos-fixed"]
    configs = [load_config(losses.CONFIG, _overrides(run, characters)) for run in runs]
    noisy, clean = (assembly.open_training_data(config.data, config.seed) for config in configs)
    np.testing.assert_array_equal(clean.labels, np.repeat(np.arange(6), 3))
    np.testing.assert_array_equal(noisy.labels, NoisyLabels(clean, 0.4, seed=3).labels)
    assert (noisy.labels != clean.labels).any()


@pytest.mark.processes
def test_a_run_that_ends_and_one_that_diverges_are_both_kept(
    characters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # compiling takes longer than the steps
    good = BY_NAME["p2sgrad-kappa0.1-noise40"]
    bad = replace(BY_NAME["normface-30"], backbone_learning_rate=1e30)
    three_steps = 3 * 256 / 18
    waiting = {f"{run.name}-seed0": (run, 0) for run in (good, bad)}
    assert losses.run_all(waiting, tmp_path, data=characters, epochs=three_steps, nproc="1") == 0
    ended, diverged = (
        read_json(result_path(tmp_path, good.name, 0), Result),
        read_json(result_path(tmp_path, bad.name, 0), Result),
    )
    assert ended.outcome == "finished"
    assert ended.evaluation is not None
    assert ended.evaluation["counts"]["images"] == 18
    assert ended.curve.step == [3]
    assert diverged.outcome == "diverged"
    assert diverged.evaluation is None
    assert "the loss is nan" in diverged.message
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.json" for name in waiting)


@pytest.mark.processes
def test_a_command_line_that_no_run_can_use_ends_the_sweep_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = {name: (BY_NAME[name], 0) for name in ("adacos-fixed", "adacos-dynamic")}
    assert losses.run_all(waiting, tmp_path / "out", data=tmp_path, epochs=1.0, nproc="none") == 1
    said = capsys.readouterr()
    assert "expected a number of processes" in said.err
    assert "[2/2]" not in said.out
    assert not (tmp_path / "out").exists()


# Tables and figures


def test_a_row_is_the_mean_over_the_seeds_with_their_spread() -> None:
    run = BY_NAME["adacos-fixed"]
    text = tables([result(run, 0, rank1=0.8), result(run, 1, rank1=0.9)])
    assert text.splitlines()[-1] == (
        "| AdaCos fixed | 0.005 | 2 | 0.850 ± 0.071 | 0.050 ± 0.000 | 0.900 ± 0.000 | 0.700 ± 0.000 "
        "| – | – | 40.0° | – |"
    )


def test_one_seed_has_a_mean_and_no_spread() -> None:
    assert mean_and_spread([0.25]) == "0.250"
    assert mean_and_spread([]) == "–"


def test_diverged_seeds_are_counted_and_left_out_of_the_means() -> None:
    run = BY_NAME["adacos-dynamic"]
    row = tables([result(run, 0, rank1=0.5), result(run, 1, rank1=None)]).splitlines()[-1]
    assert row.startswith("| AdaCos dynamic (1 of 2 diverged) | 0.005 | 2 | 0.500 |")
    alone = tables([result(run, 0, rank1=None, steps=0)]).splitlines()[-1]
    assert alone == "| AdaCos dynamic (1 of 1 diverged) | 0.005 | 1 | – | – | – | – | – | – | – | – |"


def test_each_group_has_its_table_with_the_columns_that_tell_its_rows_apart() -> None:
    text = tables(
        [result(BY_NAME[name]) for name in ("adacos-fixed", "adacos-dynamic-noise40", "adacos-dynamic-rows0.02")]
    )
    clean, rates, noise = text.split("### ")[1:]
    assert clean.startswith("Clean labels")
    assert "| AdaCos dynamic | 0.02 | 1.2 |" in rates
    assert "| AdaCos dynamic | 0.005 | 40 % |" in noise
    for part in (clean, rates, noise):
        widths = {line.count("|") for line in part.splitlines() if line.startswith("|")}
        assert len(widths) == 1


def test_figures_and_tables_come_from_the_results_that_are_there(tmp_path: Path) -> None:
    runs = [BY_NAME[name] for name in ("adacos-dynamic", "p2sgrad-lambda1", "p2sgrad-kappa0.1")]
    folder = tmp_path / "experiments" / "losses"
    for run, seed in itertools.product(runs, (0, 1)):
        write_result(result(run, seed, rank1=None if run is runs[0] else 0.5), folder)
    document = tmp_path / "experiments.md"
    parts = "".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in ("losses", "glance", "claims"))
    document.write_text(f"prose\n\n{parts}\nmore prose\n")
    assert plots.main(["--docs", str(tmp_path)]) == 0
    text = document.read_text()
    assert text.startswith("prose\n")
    assert text.endswith("more prose\n")
    assert text.index("κ = 0.1") < text.index("AdaCos dynamic (2 of 2 diverged)") < text.index("λ = 1")
    figures = [tmp_path / "experiments" / name for name in ("median_angle.svg", "slope_length.svg")]
    drawn = [figure.read_bytes() for figure in figures]
    assert all(b"</svg>" in svg for svg in drawn)
    assert plots.main(["--docs", str(tmp_path)]) == 0
    assert [figure.read_bytes() for figure in figures] == drawn
    assert document.read_text() == text


def test_at_a_glance_a_loss_has_its_runs_and_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    names = [name + suffix for name in glance.RUNS_OF.values() for suffix in glance.SUFFIXES.values()]
    assert set(names) <= BY_NAME.keys()
    for name, percent in zip(names, itertools.cycle(glance.SUFFIXES)):
        assert BY_NAME[name].label_noise == percent / 100
    of_adacos = BY_NAME[glance.RUNS_OF["AdaCos", glance.SHORT]]
    noisy = BY_NAME[of_adacos.name + glance.SUFFIXES[40]]
    results = [result(of_adacos, 0, rank1=0.8), result(of_adacos, 1, rank1=0.6), result(noisy, rank1=None)]
    (row,) = (line for line in glance.tables(results).splitlines() if "0.700" in line)
    assert row == "| AdaCos | 2 | 0.700 ± 0.141 | – | diverged | – | – | diverged |"
    glance.draw(results, tmp_path / "glance.svg")
    assert "AdaCos" in (tmp_path / "glance.svg").read_text()


def test_without_a_document_nothing_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plots.main(["--docs", str(tmp_path)]) == 2
    assert "experiments.md" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_line_is_the_mean_of_the_finished_seeds_and_no_two_losses_share_a_colour() -> None:
    run = BY_NAME["adacos-fixed"]
    seeds = [result(run, 0, last_degrees=30.0), result(run, 1, last_degrees=50.0), result(run, 2, rank1=None, steps=1)]
    (line,) = plots.angle_lines(seeds)
    np.testing.assert_array_equal(line.degrees, [90, 70, 40])
    assert (line.label, line.is_cut_short) == ("AdaCos fixed (1 of 3 diverged)", False)
    lines = plots.angle_lines([result(run) for run in RUNS if run.group == LOSSES])
    assert len({line.colour for line in lines}) == len(lines)
    assert plots.angle_lines([result(run, rank1=None, steps=0)]) == []


# The slopes


def test_adacos_fixed_scale_pulls_at_half_its_scale_at_45_degrees() -> None:
    """Eq. 12 of the paper puts the edge there; ln(C - 1) / s is cos 45° exactly."""
    (adacos,) = (line for line in slope_lines() if line.family == "adacos")
    (slope,) = slopes_at_target(adacos.objective, np.array([math.pi / 4]))
    assert slope / adacos.scale == pytest.approx(-0.5, abs=1e-6)


@pytest.mark.parametrize("line", slope_lines(), ids=lambda line: line.label)
def test_every_loss_pulls_with_its_scale_at_a_right_angle_and_has_let_go_at_its_class(line: SlopeLine) -> None:
    slopes = slopes_at_target(line.objective, np.radians(np.arange(1, 90))) / line.scale
    assert (slopes <= 0).all()
    assert slopes[-1] < -0.8
    assert slopes[0] > -0.05
