"""torchrun itself, set up as it is known to hang at a restart, is refused; and its ranks end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest
import tiny

from launch.config.loading import ConfigError
from launch.resilience.agent import AGENT, OWN_STORE, refuse_restarts_that_hang

SHARED = {"TORCHELASTIC_USE_AGENT_STORE": "True"}
STANDALONE, STATIC = ["--standalone"], ["--master-addr=127.0.0.1", "--master-port=0"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**SHARED, "TORCHELASTIC_MAX_RESTARTS": "0"},
        {**SHARED, "TORCHELASTIC_MAX_RESTARTS": "2", "TORCHELASTIC_USE_AGENT_STORE": "False", OWN_STORE: "1"},
    ],
)
def test_a_start_without_restarts_or_with_a_store_of_its_own_is_let_through(environment: dict[str, str]) -> None:
    refuse_restarts_that_hang(environment)


def test_a_shared_store_is_refused_with_what_to_set() -> None:
    with pytest.raises(ConfigError, match=f"set {OWN_STORE}=1 in the environment of torchrun"):
        refuse_restarts_that_hang({**SHARED, "TORCHELASTIC_MAX_RESTARTS": "2"})
    with pytest.raises(ConfigError, match="static rendezvous hangs at a restart: give --standalone or"):
        refuse_restarts_that_hang({**SHARED, "TORCHELASTIC_MAX_RESTARTS": "2", OWN_STORE: "1"})


RANK = """
import sys, time
from launch.resilience.agent import end_with_agent

end_with_agent()
print("goes on", flush=True)
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process of its parent's end")
@pytest.mark.parametrize("is_parent", [True, False])
def test_a_rank_whose_agent_has_ended_during_its_imports_is_told_so(is_parent: bool) -> None:
    """The number of an agent that is not this process's parent is that of one that has ended."""
    agent = os.getpid() if is_parent else os.getppid()
    environment = {**tiny.environment(), "TORCHELASTIC_RUN_ID": "a run", AGENT: str(agent)}
    done = subprocess.run(
        [sys.executable, "-c", RANK], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    expected = (0, "goes on\n") if is_parent else (-signal.SIGTERM, "")
    assert (done.returncode, done.stdout) == expected, done.stderr


@pytest.mark.processes
@pytest.mark.parametrize(
    ("meeting", "own_store", "said"),
    [(STANDALONE, "", "set TORCH_DISABLE_SHARE"), (STATIC, "1", "static rendezvous hangs")],
)
def test_torchrun_as_it_hangs_is_refused_by_its_first_rank(meeting: Sequence[str], own_store: str, said: str) -> None:
    words = [*meeting, "--nproc-per-node=1", "--max-restarts=1", "--module", "launch.train", "not-asked-for.yaml"]
    agent = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words],
        env={**tiny.environment(), OWN_STORE: own_store},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert agent.stderr is not None
    try:
        refusals = (line for line in agent.stderr if line.startswith("partial-fc: "))
        assert said in next(refusals)
    finally:
        agent.send_signal(signal.SIGTERM)  # it would ask once more
        agent.communicate(timeout=60)
