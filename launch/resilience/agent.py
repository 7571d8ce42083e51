"""What a rank asks of its agent, ``torchrun``: that a restart can work, and that both end together."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping

from launch.config.loading import ConfigError

AGENT = "PARTIAL_FC_AGENT"  # holds the number of the process that starts the ranks, where that is ours
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
LAST_RANKS_SECONDS = 30.0  # that torchrun gives ranks to end, before it kills them
_PR_SET_PDEATHSIG = 1  # in linux/prctl.h


def is_under_agent() -> bool:
    """Whether ``torchrun`` started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def patience_seconds() -> float:
    """How long a rank waits for one of an earlier agent, which may be saving its last step, to leave the run's folder.

    Nothing where a command started this process by itself: another run that has the folder is then no run that ends.
    """
    return LAST_RANKS_SECONDS if is_under_agent() else 0.0


def refuse_restarts_that_hang(environment: Mapping[str, str]) -> None:
    """ConfigError where the agent would start ranks again that could never meet, with what to set.

    ``environment`` is a rank's. Where the ranks meet in the agent's own store, those of a restart read there the
    addresses of the dead ones (torch 2.13): with gloo they fail, or wait for minutes, until no restart is left.
    """
    shares_store = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    restarts = int(environment.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if not restarts or not shares_store:
        return
    meeting = "--standalone or --rdzv-backend=c10d --rdzv-endpoint=HOST:PORT in place of --master-addr"
    if environment.get(OWN_STORE) == "1":  # and shared all the same: the static rendezvous knows no other way
        raise ConfigError(f"torchrun's static rendezvous hangs at a restart: give {meeting}, or --max-restarts=0")
    raise ConfigError(
        f"torchrun --max-restarts={restarts} would hang at the first restart: set {OWN_STORE}=1 in the environment of "
        f"torchrun itself, on every node, and give {meeting}"
    )


def end_with_agent() -> None:
    """From now on the end of this process's agent, however it comes, is a SIGTERM to this process (Linux).

    Without it the ranks of an agent that is killed train on, hold their devices and the run's folder, and a new agent
    cannot go on with the run. With it they agree on a step, save, and leave. An agent that has ended before, while this
    process was importing, counts too where it said its number.
    """
    if sys.platform == "linux" and is_under_agent():
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if int(os.environ.get(AGENT, os.getppid())) != os.getppid():
            os.kill(os.getpid(), signal.SIGTERM)
