"""The manifests: taken by the schemas of the Kubernetes API, of one mind with each other, and with the command."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from launch import cli
from launch.config.loading import load_config
from launch.config.run import Config, ReportConfig
from launch.errors import ExitCode
from launch.meeting import DEFAULT_PORT
from launch.processes import LEAVING_SECONDS

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "launch" / "cluster"
FOLDER = CLUSTER / "kubernetes"
OVERLAYS = ["base", *sorted(f"overlays/{folder.name}" for folder in (FOLDER / "overlays").iterdir())]
OLDEST, NEWEST = "1.34", "1.37"  # all that the Job uses is stable since 1.34
TREE = dict[str, Any]
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@cache
def rendered(folder: Path) -> list[TREE]:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(resources: list[TREE], kind: str) -> TREE:
    (found,) = [resource for resource in resources if resource["kind"] == kind]
    return found


def pod(job: TREE) -> TREE:
    spec: TREE = job["spec"]["template"]["spec"]
    return spec


def trainer(job: TREE) -> TREE:
    (container,) = pod(job)["containers"]
    return dict(container)


def refused(resource: TREE, version: str = OLDEST) -> str:
    """Why the API's schema does not take ``resource``; empty where it does."""
    try:
        kubernetes_validate.validate(resource, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error.message)
    return ""


def kubeflow() -> tuple[TREE, TREE]:
    """The runtime, and the run on it."""
    runtime, run = yaml.safe_load_all((CLUSTER / "trainjob.yaml").read_text())
    return runtime, run


def kubeflow_job() -> TREE:
    """What Kubeflow makes of the runtime: a Job of the Kubernetes API."""
    (node,) = kubeflow()[0]["spec"]["template"]["spec"]["replicatedJobs"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "faces-node-0"}, **node["template"]}


def jobs() -> list[TREE]:
    return [*(of_kind(rendered(FOLDER / overlay), "Job") for overlay in OVERLAYS), kubeflow_job()]


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_takes_every_manifest(overlay: str) -> None:
    resources = rendered(FOLDER / overlay)
    assert {resource["kind"] for resource in resources} >= {"Job", "Service", "ConfigMap", "NetworkPolicy"}
    found = [(resource["kind"], refused(resource, version)) for version in (OLDEST, NEWEST) for resource in resources]
    assert [each for each in found if each[1]] == []


@needs_kubectl
def test_a_wrong_word_and_a_wrong_kind_of_value_are_found() -> None:
    job = of_kind(rendered(FOLDER / "base"), "Job")
    assert refused(job) == ""
    assert "terminationGracePeriod" in refused(changed(job, pod_spec={"terminationGracePeriod": 330}))
    assert "not of type 'integer'" in refused(changed(job, pod_spec={"terminationGracePeriodSeconds": "330"}))
    assert "backoffLimitPerPod" in refused({**job, "spec": {**job["spec"], "backoffLimitPerPod": 1}})


def changed(job: TREE, pod_spec: TREE) -> TREE:
    template = {**job["spec"]["template"], "spec": {**pod(job), **pod_spec}}
    return {**job, "spec": {**job["spec"], "template": template}}


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pods_are_as_many_as_the_command_is_told(overlay: str) -> None:
    spec = of_kind(rendered(FOLDER / overlay), "Job")["spec"]
    words = trainer({"spec": spec})["args"]
    assert words[words.index("--nodes") + 1] == str(spec["completions"]) == str(spec["parallelism"])


@needs_kubectl
def test_all_that_is_trained_stands_in_the_yaml() -> None:
    for job in jobs():
        words = [word.replace("$(PET_NNODES)", "2") for word in trainer(job)["args"]]
        arguments = cli.command_parser().parse_args(words)
        assert (arguments.config, arguments.set) == (Path("/config/run.yaml"), [])
        assert {*words[2::2]} == {"--nodes", "--meet", "--max-restarts"}
        assert {each["name"] for each in trainer(job).get("env", [])} <= {"JOB", "NCCL_DEBUG", "NCCL_SOCKET_IFNAME"}


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_yaml_of_a_run_is_a_configuration_that_writes_where_the_pods_share_a_folder(
    overlay: str, tmp_path: Path
) -> None:
    resources = rendered(FOLDER / overlay)
    config_map = of_kind(resources, "ConfigMap")
    config = loaded(config_map["data"]["run.yaml"], tmp_path)
    assert config.run_dir.is_relative_to("/runs")
    assert str(config.data.train).startswith("/data/")
    assert config.save_every_steps is not None
    assert config.report.address == "0.0.0.0", "Prometheus is another pod"
    volumes = {volume["name"]: volume for volume in pod(of_kind(resources, "Job"))["volumes"]}
    assert volumes["config"]["configMap"]["name"] == config_map["metadata"]["name"]
    claims = {resource["metadata"]["name"] for resource in resources if resource["kind"] == "PersistentVolumeClaim"}
    asked = {each["persistentVolumeClaim"]["claimName"] for each in volumes.values() if "persistentVolumeClaim" in each}
    assert asked == claims


def loaded(text: str, folder: Path) -> Config:
    (folder / "run.yaml").write_text(text)
    return load_config(folder / "run.yaml", [])


@needs_kubectl
def test_pods_may_do_no_more_than_they_need() -> None:
    for job in jobs():
        spec = pod(job)
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            assert "/tmp" in written


@needs_kubectl
def test_a_pod_that_ends_is_replaced_where_that_helps_and_nowhere_else() -> None:
    for job in jobs():
        assert job["spec"]["completionMode"] == "Indexed"
        assert job["spec"]["maxFailedIndexes"] == 0, "a run without one of its nodes is none"
        assert pod(job)["restartPolicy"] == "Never", "the policies below need it"
        by_node, by_us, for_good = job["spec"]["podFailurePolicy"]["rules"]
        assert (by_node["action"], by_us["action"], for_good["action"]) == ("Ignore", "Ignore", "FailJob")
        assert by_node["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
        assert by_us["onExitCodes"]["values"] == [ExitCode.STOPPED]
        assert for_good["onExitCodes"]["values"] == [ExitCode.BAD_CONFIG, ExitCode.BAD_DATA, ExitCode.DIVERGED]
        assert {rule["onExitCodes"]["containerName"] for rule in (by_us, for_good)} == {trainer(job)["name"]}


@needs_kubectl
def test_pods_have_time_to_save_and_shared_memory() -> None:
    for job in jobs():
        assert pod(job)["terminationGracePeriodSeconds"] > LEAVING_SECONDS
        volumes = {volume["name"]: volume for volume in pod(job)["volumes"]}
        (shared,) = [mount["name"] for mount in trainer(job)["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
        assert volumes[shared]["emptyDir"]["medium"] == "Memory"


@needs_kubectl
def test_prometheus_finds_a_port_for_each_rank() -> None:
    first = ReportConfig().port
    for overlay in OVERLAYS:
        service, job = (of_kind(rendered(FOLDER / overlay), kind) for kind in ("Service", "Job"))
        assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
        ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
        assert ports.pop("meet") == DEFAULT_PORT
        assert ports == {port["name"]: port["containerPort"] for port in trainer(job)["ports"]}
        gpus = {port["name"]: port["containerPort"] for port in trainer(job)["ports"]}
        gpus = trainer(job).get("resources", {}).get("limits", {}).get("nvidia.com/gpu", len(ports))
        assert ports == {f"metrics-{rank}": first + rank for rank in range(gpus)}
        asked = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"][0]["dns_sd_configs"][0][
            "names"
        ]
        assert {f"_{name}._tcp.{service['metadata']['name']}.default.svc.cluster.local" for name in ports} <= {*asked}


@needs_kubectl
def test_a_run_of_another_name_finds_its_own_pods(tmp_path: Path) -> None:
    """``JOB`` is the name of the Job, and the names of pods lie in the Service that is the subdomain."""
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(
        "namePrefix: mine-\nresources: [../kubernetes/overlays/cpu]\n"
    )
    resources = rendered(tmp_path / "mine")
    names = {kind: of_kind(resources, kind)["metadata"]["name"] for kind in ("Job", "Service")}
    assert pod(of_kind(resources, "Job"))["subdomain"] == names["Job"] == names["Service"] == "mine-partial-fc"


def test_what_kubeflow_makes_of_its_runtime_is_a_job_that_the_api_takes() -> None:
    assert refused(kubeflow_job()) == ""
    assert refused(changed(kubeflow_job(), pod_spec={"subdomian": "faces"})) != ""


def test_the_layers_around_that_job_are_those_of_trainer_v2() -> None:
    """No schema of theirs is at hand: these are the keys of its v1alpha1 types, and of JobSet's, that are used here."""
    runtime, run = kubeflow()
    assert runtime["apiVersion"] == run["apiVersion"] == "trainer.kubeflow.org/v1alpha1"
    assert (runtime["kind"], run["kind"]) == ("TrainingRuntime", "TrainJob")
    assert runtime["spec"].keys() == {"mlPolicy", "template"}
    assert runtime["spec"]["mlPolicy"].keys() == {"numNodes", "torch"}
    job_set = runtime["spec"]["template"]["spec"]
    assert job_set.keys() == {"failurePolicy", "replicatedJobs"}
    (node,) = job_set["replicatedJobs"]
    assert (node.keys(), node["name"]) == ({"name", "template"}, "node")
    labels = node["template"]["metadata"]["labels"]
    assert labels == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}, "by which it is found"
    reference = run["spec"]["runtimeRef"]
    assert (reference["name"], reference["kind"]) == (runtime["metadata"]["name"], runtime["kind"])
    assert run["spec"]["trainer"].keys() == {"numNodes", "resourcesPerNode"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed; Debian: package prometheus")
def test_promtool_takes_the_configuration_that_finds_pods() -> None:
    words = ["promtool", "check", "config", str(FOLDER / "prometheus.yml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", [CLUSTER / "trainjob.yaml", ROOT / "docs" / "cluster.md"])
def test_the_commands_for_kubeflow_bring_all_that_its_pods_need(file: Path) -> None:
    text = file.read_text()
    applied = [ROOT / name for name in re.findall(r"--filename (\S+)", text)]
    resources = [each for path in applied for each in yaml.safe_load_all(path.read_text())]
    volumes = pod(kubeflow_job())["volumes"]
    claims = {resource["metadata"]["name"] for resource in resources if resource["kind"] == "PersistentVolumeClaim"}
    assert claims == {each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each}
    labels = kubeflow_job()["spec"]["template"]["metadata"]["labels"]
    assert of_kind(resources, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    (config,) = [each["configMap"]["name"] for each in volumes if "configMap" in each]
    assert f"kubectl create configmap {config} --from-file=run.yaml=" in text
    assert {"TrainingRuntime", "TrainJob"} <= {resource["kind"] for resource in resources}
