"""Every test: one thread and a fixed seed; where no GPU is, the shapes of partial_fc's signatures are checked."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import install_import_hook

from launch.config.apex import has_apex

if not torch.cuda.is_available():  # where functions are compiled: no compiler sees through the checks
    # Installed for good: modules that are first imported inside a test are checked too.
    install_import_hook("partial_fc", "beartype.beartype")

torch.set_num_threads(1)

SLOW = (  # a second or more each: `make quick` leaves them and the tests of real processes out
    "benchmarks/",
    "data_pipeline/loader/",
    "data_pipeline/order/",
    "data_pipeline/test_fuzz.py",
    "docs/",
    "launch/assembly/test_build.py",
    "launch/commands/",
    "launch/evaluation/",
    "launch/config/test_config.py",
    "launch/pages/test_report_page.py",
    "launch/planning/",
    "launch/protocols/",
    "launch/test_embed.py",
    "launch/test_evaluate.py",
    "launch/test_fine_tuning.py",
    "launch/test_launch_processes.py",
    "launch/test_train.py",
    "launch/watching/",
    "partial_fc/checkpoint/",
    "partial_fc/planning/",
    "partial_fc/reports/test_prometheus.py",
    "partial_fc/test_backbones.py",
    "partial_fc/test_classifier.py",
    "partial_fc/test_evaluation.py",
    "partial_fc/test_fused.py",
    "partial_fc/test_gram_sweep.py",
    "partial_fc/test_host_reads.py",
    "partial_fc/test_objectives.py::test_128_ranks",
    "partial_fc/test_objectives.py::test_a_collapsed",
    "partial_fc/test_objectives.py::test_a_share",
    "partial_fc/test_objectives.py::test_enough",
    "partial_fc/test_objectives.py::test_loss_and_both",
    "partial_fc/test_objectives.py::test_no_less",
    "partial_fc/test_objectives.py::test_sampling",
    "partial_fc/test_objectives.py::test_targets_listed",
    "partial_fc/test_objectives.py::test_too_few",
    "partial_fc/test_padded_step.py",
    "partial_fc/test_scratch.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests, and skip those that need apex where it is not."""
    needs_apex = pytest.mark.skipif(
        not (torch.cuda.is_available() and has_apex()),
        reason="needs a GPU and NVIDIA's apex, which NVIDIA's PyTorch image has: nvidia/pytorch",
    )
    for item in items:
        if item.get_closest_marker("apex"):
            item.add_marker(needs_apex)
        if item.nodeid.removeprefix("tests/").startswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(20)
