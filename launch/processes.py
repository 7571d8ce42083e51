"""The processes of a run on this machine, and how each keeps its memory."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn
from uuid import uuid4

from launch.meeting import Meeting, refuse_unknown_interfaces
from launch.resilience.agent import AGENT, OWN_STORE

PATIENCE_SECONDS = 24 * 3600.0  # of ranks that meet at the end alone: one may have far more to do than another
LEAVING_SECONDS = 300  # that ranks have to save and leave after SIGTERM, before they are killed; torchrun's own: 30


def run_ranks(
    module: str, words: Sequence[str], nproc: int, max_restarts: int = 0, meeting: Meeting | None = None
) -> int:
    """The exit code of ``nproc`` ranks of ``module`` under torchrun, in sessions of their own, on this machine.

    With ``meeting`` it is one node of several, each of which runs this.
    When one of them fails all are started again, up to ``max_restarts`` times, and go on from the last checkpoint.
    That of the first rank that failed; 128 + the signal's number where a signal ended this process and so its ranks.
    ConfigError where the environment names a network that this machine does not have.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousConnectionError, RendezvousError
    from torch.distributed.run import get_args_parser
    from torch.distributed.run import run as run_agent

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // nproc)))
    logging.disable(logging.CRITICAL)  # of torchrun's, in this process: the rank that failed has said why
    # What --standalone does, but by address: the ranks meet though nothing resolves this machine's name.
    # A number of nodes that Kubeflow sets in the environment, PET_NNODES, is not for them.
    alone = ["--nnodes=1", "--rdzv-endpoint=127.0.0.1:0", f"--rdzv-id={uuid4()}", "--local-addr=127.0.0.1"]
    if max_restarts or meeting:  # torch 2.13 would let the new ranks read the addresses of the dead ones
        os.environ[OWN_STORE] = "1"
    ranks = [f"--nproc-per-node={nproc}", f"--max-restarts={max_restarts}", f"--shutdown-timeout={LEAVING_SECONDS}"]
    refuse_unknown_interfaces(os.environ)
    os.environ[AGENT] = str(os.getpid())
    try:
        where = _words_of(meeting) if meeting else alone
        command = ["--rdzv-backend=c10d", *where, *ranks, "--module", module, *words]
        run_agent(get_args_parser().parse_args(command))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        name = failure.signal_name()
        cause = ": mostly for want of memory; partial-fc plan says what a run needs" if name == "SIGKILL" else ""
        print(f"partial-fc: rank {rank} was killed ({name}){cause}", file=sys.stderr)
        return 1
    except SignalException as error:
        return 128 + error.sigval
    except RendezvousError as error:
        if meeting is None:
            raise
        is_lost = isinstance(error, RendezvousConnectionError)
        print(f"partial-fc: {meeting.lost() if is_lost else meeting.failed(error)}", file=sys.stderr)
        return 1
    finally:
        del os.environ[AGENT]
    return 0


def _cores() -> int:
    """Those that this process may use: a scheduler may give it some of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _words_of(meeting: Meeting) -> list[str]:
    """What torchrun is told of ``meeting``, once its host is there. RendezvousError where it does not come."""
    from torch.distributed.elastic.rendezvous.api import RendezvousTimeoutError

    try:
        meeting.wait()
    except OSError as error:
        raise RendezvousTimeoutError(str(error)) from error
    meeting.choose_network()
    return meeting.words()


def end_with(main: Callable[[], int]) -> NoReturn:
    """End this process with the exit code of ``main()``, at once when that returns or is told to end.

    Python would first take torch and DALI apart, for a second and more of a processor: while a rank was killed and the
    others are ended, all ranks wait for that before they can start again. An error that nobody foresaw takes that way.
    """
    try:
        exit_code: int = main()
    except SystemExit as told:
        exit_code = told.code if isinstance(told.code, int) else int(told.code is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names for them, in malloc.h
_LARGEST_KEPT_BYTES = 32 << 20  # glibc takes no more


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks of up to 32 MiB in the process; False where that is not glibc.

    By default it gives them back, and the kernel maps fresh pages at the next step: for a network trained on a CPU, at
    every layer. Peak memory stays; what is kept is what the next step asks for.
    """
    libc = ctypes.CDLL(None)
    if sys.platform != "linux" or not hasattr(libc, "mallopt"):
        return False
    kept = libc.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
    return bool(libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1) and kept)
