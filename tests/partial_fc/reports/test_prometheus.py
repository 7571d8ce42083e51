from __future__ import annotations

import errno
import math
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import pytest
from ports import free_port
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from partial_fc.reports.endpoint import EndpointError, EndpointTLS
from partial_fc.reports.prometheus import PHASES, PrometheusSink
from partial_fc.reports.step_report import Phase, StepReport


def report(**figures: Any) -> StepReport:
    values: dict[str, Any] = {
        "step": 1010,
        "total_steps": 4000,
        "epoch": 2.5,
        "images": 129280,
        "interval_steps": 10,
        "interval_images": 1280,
        "images_per_second": 640.0,
        "step_seconds": 0.2,
        "data_wait_seconds": 0.003,
        "loss": 8.5,
        "scale": 20.5,
        "median_target_angle_radians": 1.25,
        "learning_rate": 0.1,
        "row_learning_rate": 0.05,
        "own_step_seconds": 0.05,
        "slowest_rank": 3,
        "slowest_rank_lag_seconds": 0.125,
        "seconds_left": 600.0,
        "timestamp_seconds": 1.75e9,
    }
    return StepReport(**{**values, **figures})


def sink_with(**options: Any) -> PrometheusSink:
    facts: dict[str, Any] = {"version": "0.1.0", "objective": "adacos", "num_classes": 85742, "world_size": 4}
    return PrometheusSink(**{"run": "r1", "port": 0, **facts, **options})


@pytest.fixture
def sink() -> Iterator[PrometheusSink]:
    opened = sink_with()
    yield opened
    opened.close()


def page(sink: PrometheusSink, accept: str = "text/plain") -> str:
    request = Request(f"http://127.0.0.1:{sink.port}/metrics", headers={"Accept": accept})
    with urlopen(request, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def families(sink: PrometheusSink) -> dict[str, Metric]:
    found = {family.name: family for family in text_string_to_metric_families(page(sink))}
    return {name.removeprefix("partial_fc_"): family for name, family in found.items() if "partial_fc_" in name}


def value(sink: PrometheusSink, name: str, **labels: str) -> float | None:
    wanted = {"run": "r1", **labels}
    samples = [sample for family in families(sink).values() for sample in family.samples]
    values = [s.value for s in samples if s.name == f"partial_fc_{name}" and s.labels == wanted]
    return values[0] if values else None


def test_names_and_types_are_those_of_the_dashboards(sink: PrometheusSink) -> None:
    sink.write(report(extra={"scale_capped": 0.5}))
    sink.saved(timestamp_seconds=1.75e9, writing_seconds=12.0, pause_seconds=0.5)
    assert {name: family.type for name, family in families(sink).items()} == {
        "images": "counter",
        "bad_images": "counter",
        "skipped_steps": "counter",
        "steps": "counter",
        "step_seconds": "histogram",
        "data_wait_seconds": "histogram",
        "run_info": "gauge",
        "step": "gauge",
        "run_steps": "gauge",
        "stage": "gauge",
        "epoch": "gauge",
        "loss": "gauge",
        "scale": "gauge",
        "scale_capped": "gauge",
        "median_target_angle_radians": "gauge",
        "learning_rate": "gauge",
        "row_learning_rate": "gauge",
        "own_step_seconds": "gauge",
        "slowest_rank": "gauge",
        "slowest_rank_lag_seconds": "gauge",
        "remaining_seconds": "gauge",
        "estimated_end_timestamp_seconds": "gauge",
        "gradient_norm": "gauge",
        "peak_memory_bytes": "gauge",
        "goodput_ratio": "gauge",
        "spent_seconds": "gauge",
        "forward_seconds": "histogram",
        "head_seconds": "histogram",
        "backward_seconds": "histogram",
        "update_seconds": "histogram",
        "collective_seconds": "histogram",
        "collective_bytes": "counter",
        "evaluation": "gauge",
        "last_step_timestamp_seconds": "gauge",
        "checkpoint_seconds": "histogram",
        "checkpoint_pause_seconds": "histogram",
        "last_checkpoint_timestamp_seconds": "gauge",
        "restarts": "gauge",
        "evaluating": "gauge",
    }


def test_every_metric_explains_itself_and_has_no_label_but_the_run(sink: PrometheusSink) -> None:
    sink.write(report())
    sink.saved(timestamp_seconds=1.75e9, writing_seconds=12.0, pause_seconds=0.5)
    for name, family in families(sink).items():
        assert family.documentation.endswith("."), name
        for sample in family.samples:
            assert sample.labels["run"] == "r1"
            allowed = {"spent_seconds": {"run", "cause"}, "evaluation": {"run", "set", "measure"}}.get(
                name, {"run", "le"}
            )
            assert name == "run_info" or sample.labels.keys() <= allowed


def test_gauges_show_the_last_report_in_base_units(sink: PrometheusSink) -> None:
    sink.write(report(loss=9.0))
    sink.write(report())
    shown = {
        "loss": 8.5,
        "scale": 20.5,
        "median_target_angle_radians": 1.25,
        "learning_rate": 0.1,
        "row_learning_rate": 0.05,
        "last_step_timestamp_seconds": 1.75e9,
        "step": 1010,
        "run_steps": 4000,
        "epoch": 2.5,
        "own_step_seconds": 0.05,
        "slowest_rank": 3,
        "slowest_rank_lag_seconds": 0.125,
        "remaining_seconds": 600,
    }
    assert {name: value(sink, name) for name in shown} == shown


def test_a_figure_ends_with_the_stage_whose_objective_has_it(sink: PrometheusSink) -> None:
    sink.saved(timestamp_seconds=1.75e9, writing_seconds=12.0, pause_seconds=0.5)
    sink.write(report(extra={"near_per_image": 12.5}))
    assert value(sink, "near_per_image") == 12.5
    sink.write(report(extra={"scale_capped": 0.0}, stage=2))
    assert (value(sink, "near_per_image"), value(sink, "scale_capped")) == (None, 0.0)
    assert value(sink, "last_checkpoint_timestamp_seconds") == 1.75e9
    assert value(sink, "restarts") == 0


def test_counters_start_at_zero_and_count_this_ranks_work_in_this_process(sink: PrometheusSink) -> None:
    assert (value(sink, "images_total"), value(sink, "steps_total")) == (0, 0)
    sink.write(report())
    sink.write(report(interval_steps=5, interval_images=640))
    assert (value(sink, "images_total"), value(sink, "steps_total")) == (1920 / 4, 15)


def test_histograms_take_every_step_where_its_duration_is_known(sink: PrometheusSink) -> None:
    sink.write(report(step_seconds_of_steps=(0.04, 0.04, 3.0), data_wait_seconds_of_steps=(0.0, 0.0, 2.9)))
    assert value(sink, "step_seconds_count") == 3
    assert value(sink, "step_seconds_sum") == pytest.approx(3.08)
    assert value(sink, "step_seconds_bucket", le="0.05") == 2
    assert value(sink, "step_seconds_bucket", le="2.0") == 2
    assert value(sink, "step_seconds_bucket", le="5.0") == 3
    assert value(sink, "data_wait_seconds_bucket", le="0.0002") == 2
    assert value(sink, "data_wait_seconds_bucket", le="+Inf") == 3


def test_histograms_take_the_mean_once_per_step_otherwise(sink: PrometheusSink) -> None:
    sink.write(report())
    assert value(sink, "step_seconds_count") == value(sink, "data_wait_seconds_count") == 10
    assert value(sink, "step_seconds_sum") == pytest.approx(2.0)
    assert value(sink, "data_wait_seconds_bucket", le="0.005") == 10
    assert value(sink, "data_wait_seconds_bucket", le="0.002") == 0


def test_the_phases_of_a_step_are_parted_and_what_was_carried_counted(sink: PrometheusSink) -> None:
    phases: dict[Phase, tuple[float, ...]] = {"head": (0.03, 0.04), "backward": (0.1,), "collective": (0.0, 0.3)}
    sink.write(report(phase_seconds_of_steps=phases, interval_collective_bytes_of_rank=4096))
    sink.write(report(interval_collective_bytes_of_rank=1024))
    counts = {phase: value(sink, f"{phase}_seconds_count") for phase in PHASES}
    assert counts == {"forward": 0, "head": 2, "backward": 1, "update": 0, "collective": 2}
    assert value(sink, "head_seconds_sum") == pytest.approx(0.07)
    assert value(sink, "collective_seconds_bucket", le="0.2") == 1
    assert value(sink, "collective_bytes_total") == 5120


def test_the_measures_of_the_last_evaluation_are_shown_by_set(sink: PrometheusSink) -> None:
    sink.evaluated({"lfw.accuracy": 0.5, "held.out.tar_at_far_1e-3": 0.25})
    sink.evaluated({"lfw.accuracy": 0.75})
    assert value(sink, "evaluation", set="lfw", measure="accuracy") == 0.75
    assert value(sink, "evaluation", set="held.out", measure="tar_at_far_1e-3") == 0.25


def test_an_evaluation_is_shown_while_it_lasts(sink: PrometheusSink) -> None:
    assert value(sink, "evaluating") == 0
    with sink.evaluating():
        assert value(sink, "evaluating") == 1
    assert value(sink, "evaluating") == 0


def test_what_the_time_was_spent_on_is_shown_by_cause(sink: PrometheusSink) -> None:
    sink.write(report(seconds_spent={"training": 90.0, "start": 10.0}, goodput_ratio=0.9))
    assert (value(sink, "goodput_ratio"), value(sink, "spent_seconds", cause="start")) == (0.9, 10.0)
    assert value(sink, "estimated_end_timestamp_seconds") == 1.75e9 + 600


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``own.pem`` with ``own.key``, and another pair called ``strange``; each signs for itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("own", "strange"):
        words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -addext subjectAltName=IP:127.0.0.1"
        command = ["openssl", *words.split(), "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def asked(sink: PrometheusSink, certificates: Path, holder: str | None) -> bool:
    """Whether the endpoint, which is known by its certificate, answers the holder of a certificate, or of none."""
    context = ssl.create_default_context(cafile=str(certificates / "own.pem"))
    if holder is not None:
        context.load_cert_chain(certificates / f"{holder}.pem", certificates / f"{holder}.key")
    try:
        with urlopen(f"https://127.0.0.1:{sink.port}/metrics", timeout=10, context=context) as answer:
            return b"partial_fc_run_info" in answer.read()
    except OSError:
        return False


def test_with_tls_it_is_encrypted_and_with_clients_only_theirs_are_answered(
    certificates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = certificates / "own.pem", certificates / "own.key"
    for clients, answered in ((None, (True, True)), (own[0], (False, True))):
        sink = sink_with(tls=EndpointTLS(*own, clients))
        assert (asked(sink, certificates, None), asked(sink, certificates, "own")) == answered
        assert not (clients and asked(sink, certificates, "strange"))
        with pytest.raises(OSError, match=r".+"):
            page(sink)  # in the clear
        sink.close()
    assert capsys.readouterr().err == "", "who is refused leaves nothing in the log of the training"


def test_with_tls_a_client_that_says_nothing_holds_up_nobody(certificates: Path) -> None:
    sink = sink_with(tls=EndpointTLS(certificates / "own.pem", certificates / "own.key"))
    with socket.create_connection(("127.0.0.1", sink.port)):
        assert asked(sink, certificates, None)
        closing = Thread(target=sink.close, daemon=True)
        closing.start()
        closing.join(10)
        assert not closing.is_alive()


@pytest.mark.parametrize("missing", ["certificate", "key", "clients"])
def test_a_certificate_that_is_not_there_or_none_is_named(missing: str, certificates: Path, tmp_path: Path) -> None:
    files = {"certificate": certificates / "own.pem", "key": certificates / "own.key", "clients": None}
    gone, none = tmp_path / "gone.pem", tmp_path / "none.pem"
    none.write_text("no certificate")
    for bad in (gone, none):
        with pytest.raises(EndpointError, match=f"no metrics endpoint: .*{bad}"):
            sink_with(tls=EndpointTLS(**{**files, missing: bad}))  # type: ignore[arg-type]


def test_bad_images_are_counted_for_this_rank_from_zero_on(sink: PrometheusSink) -> None:
    assert value(sink, "bad_images_total") == 0
    for count in (3, 0, 2):
        sink.write(report(bad_images=100, interval_bad_images_of_rank=count))
    assert value(sink, "bad_images_total") == 5


def test_checkpoints_are_shown_beside_the_steps(sink: PrometheusSink) -> None:
    assert value(sink, "last_checkpoint_timestamp_seconds") is None
    for seconds in (12.0, 45.0):
        sink.saved(timestamp_seconds=1.75e9 + seconds, writing_seconds=seconds, pause_seconds=seconds / 100)
    sink.write(report())
    assert value(sink, "last_checkpoint_timestamp_seconds") == 1.75e9 + 45
    assert value(sink, "checkpoint_seconds_bucket", le="20.0") == 1
    assert value(sink, "checkpoint_seconds_bucket", le="60.0") == 2
    assert value(sink, "checkpoint_pause_seconds_bucket", le="0.1") == 0
    assert value(sink, "checkpoint_pause_seconds_bucket", le="0.2") == 1
    assert value(sink, "checkpoint_pause_seconds_sum") == pytest.approx(0.57)


def test_restarts_and_the_checkpoint_that_a_run_goes_on_from_are_shown_before_its_first_step() -> None:
    sink = sink_with(restarts=2, last_checkpoint_timestamp_seconds=1.75e9)
    assert (value(sink, "restarts"), value(sink, "last_checkpoint_timestamp_seconds")) == (2, 1.75e9)
    sink.close()


def test_a_gauge_shows_nothing_while_there_is_no_value(sink: PrometheusSink) -> None:
    assert value(sink, "last_step_timestamp_seconds") is None
    sink.write(report())
    assert value(sink, "scale") == 20.5
    sink.write(report(scale=None, loss=math.nan))
    assert value(sink, "scale") is None
    assert math.isnan(value(sink, "loss") or 0.0)


def test_the_run_is_described_before_its_first_step(sink: PrometheusSink) -> None:
    facts = {"version": "0.1.0", "objective": "adacos", "num_classes": "85742", "world_size": "4"}
    assert value(sink, "run_info", **facts) == 1


def test_there_are_no_created_series_in_either_format(sink: PrometheusSink) -> None:
    sink.write(report())
    open_metrics = page(sink, accept="application/openmetrics-text; version=1.0.0")
    assert open_metrics.endswith("# EOF\n")
    for text in (page(sink), open_metrics):
        assert "partial_fc_images_total" in text
        assert "_created" not in text


def test_the_memory_of_the_process_is_shown(sink: PrometheusSink) -> None:
    found = {family.name: family for family in text_string_to_metric_families(page(sink))}
    assert found["process_resident_memory_bytes"].samples[0].value > 1 << 20


def test_two_runs_in_one_process_do_not_mix(sink: PrometheusSink) -> None:
    other = sink_with(run="r2")
    other.write(report(loss=1.0))
    assert value(sink, "loss") is None
    assert value(other, "loss", run="r2") == 1.0
    other.close()


def test_a_rank_listens_at_the_port_plus_its_local_rank() -> None:
    port = free_port()
    sink = sink_with(port=port - 3, local_rank=3)
    assert sink.port == port
    assert "partial_fc_run_info" in page(sink)
    sink.close()


def test_any_free_port_is_found_for_any_rank() -> None:
    sink = sink_with(port=0, local_rank=3)
    assert sink.port > 3
    sink.close()


def test_a_port_in_use_is_named(sink: PrometheusSink) -> None:
    with pytest.raises(EndpointError, match=rf"127\.0\.0\.1 port {sink.port}: .*in use") as refused:
        sink_with(port=sink.port - 1, local_rank=1)
    assert refused.value.errno == errno.EADDRINUSE


def test_close_frees_the_port_and_may_be_called_twice() -> None:
    first = sink_with()
    first.close()
    first.close()
    with pytest.raises(OSError, match="refused"):
        page(first)
    second = sink_with(port=first.port)
    second.close()


def test_only_this_host_is_answered_unless_asked_otherwise() -> None:
    sink = sink_with()
    with socket.socket() as other:
        other.settimeout(5)
        assert other.connect_ex(("127.0.0.2", sink.port)) == errno.ECONNREFUSED
    sink.close()
