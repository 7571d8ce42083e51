"""What a command says when it cannot go on: one line, and an exit code that scripts can rely on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

from launch.config.loading import ConfigError
from partial_fc.divergence import TrainingDiverged
from partial_fc.reports.prometheus import EndpointError

EXIT_CODES = """\
exit codes:
  0    done
  1    an error nobody foresaw, or a rank that was killed: the traceback says where
  2    the command line or the configuration cannot be used
  3    the data or a file cannot be used: missing, damaged, in the way
  4    training diverged: the loss was not finite, and no weight was updated by it
  130  interrupted
  143  told to end by SIGTERM: a training has saved its last step, and the same command goes on from there
PARTIAL_FC_TRACEBACK=1 in the environment shows the traceback of any error."""

_ADVICE = {  # the libraries say what happened and know no configuration; here are the keys to change
    TrainingDiverged: (
        "The run's metrics.jsonl has the reports. The keys: optimizer.learning_rate and classifier.learning_rate, "
        "schedule.warmup_epochs, objective.max_scale, optimizer.clip_norm"
    ),
    EndpointError: (
        "Set report.port, to which each rank of a host adds its local rank, to the first of a range of free ports, or "
        "to 0 for any free port"
    ),
}
_MOMENT_SECONDS = 5.0


class ExitCode(IntEnum):
    """What a command exits with; :data:`EXIT_CODES` says it to users."""

    DONE = 0
    BAD_CONFIG = 2
    BAD_DATA = 3
    DIVERGED = 4
    INTERRUPTED = 130
    STOPPED = 143


class Stopped(Exception):  # noqa: N818  # the name says what happened
    """A training that was told to end, and has saved where it stands."""


@dataclass
class Outcome:
    """The exit code of the block under :func:`reported`."""

    exit_code: int = ExitCode.DONE


@contextmanager
def reported() -> Iterator[Outcome]:
    """Turn the errors that a user can mend into one line on standard error and an exit code; let others through.

    Under ``torchrun`` such an error mostly comes up on every rank alike, and the first that exits ends the others. So
    the first rank of a host says it at once; the others wait a moment, and speak only if it may be theirs alone. An
    error that nobody foresaw waits longest: it may be no more than the end of a rank that has something to say.
    """
    outcome = Outcome()
    try:
        yield outcome
    except Stopped as stopped:
        outcome.exit_code = ExitCode.STOPPED
        if os.environ.get("RANK", "0") == "0":
            print(f"partial-fc: {stopped}", file=sys.stderr, flush=True)
    except (ConfigError, ValueError, OSError, TrainingDiverged) as error:
        if os.environ.get("PARTIAL_FC_TRACEBACK") == "1":
            raise
        outcome.exit_code = _exit_code(error)
        is_first = os.environ.get("LOCAL_RANK", "0") == "0"
        if not is_first:
            time.sleep(_MOMENT_SECONDS)
        if is_first or outcome.exit_code == ExitCode.BAD_DATA:
            said = ". ".join((str(error), *(advice for kind, advice in _ADVICE.items() if isinstance(error, kind))))
            print("partial-fc:", " ".join(said.split()), file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        outcome.exit_code = ExitCode.INTERRUPTED
    except Exception:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            time.sleep(2 * _MOMENT_SECONDS)
        raise


def _exit_code(error: Exception) -> ExitCode:
    if isinstance(error, ConfigError):
        return ExitCode.BAD_CONFIG
    return ExitCode.DIVERGED if isinstance(error, TrainingDiverged) else ExitCode.BAD_DATA
