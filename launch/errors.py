"""What a command says when it cannot go on: one line, and an exit code that scripts can rely on."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from launch.config.loading import ConfigError

EXIT_CODES = """\
exit codes:
  0    done
  1    an error nobody foresaw, a disk that is away, or a rank that was killed or hung: the output says where
  2    the command line or the configuration cannot be used, or asks for more memory than there is
  3    the data or a file cannot be used: missing, damaged, in the way, or the disk is full
  4    training diverged: too many losses were not finite or jumped; no weight was updated by them
  130  interrupted
  143  told to end by SIGTERM: a training has saved its last step, and the same command goes on from there
PARTIAL_FC_TRACEBACK=1 in the environment shows the traceback of any error."""

# The libraries say what happened and know no configuration; here are the keys to change. By the names of the classes
# of errors: to import these would import torch, which takes longer than all that a refused start does.
_ADVICE = {
    "TrainingDiverged": (
        "The run's metrics.jsonl has the reports. The keys: optimizer.learning_rate and classifier.learning_rate, "
        "schedule.warmup_epochs, objective.max_scale, optimizer.clip_norm; divergence.most_skipped and divergence.spike"
    ),
    "EndpointError": (
        "Set report.port, to which each rank of a host adds its local rank, to the first of a range of free ports, or "
        "to 0 for any free port"
    ),
    "TorchDynamoException": "Nothing was trained with it: set backbone.compile to false, or to auto, which does so",
}
_MEMORY_ADVICE = (
    "Ask `partial-fc plan CONFIG` what the run needs. It needs less with a smaller schedule.batch_size, with "
    "backbone.checkpoint_activations, a smaller network, or more ranks, which share the classes among them"
)
_NO_MEMORY = re.compile(
    "out of memory|can't allocate memory|Cannot allocate memory|bad_alloc|ALLOC_FAILED|Storage size calculation"
)
_PARTS = {  # the deepest of these packages on the way to an error: what was being done
    "partial_fc/backbones": "the network",
    "partial_fc/classifier.py": "the classifier",
    "partial_fc/rows": "the classifier's rows",
    "partial_fc/loop.py": "a training step",
    "partial_fc/embedding.py": "the embedding of held-out images",
    "partial_fc/evaluation.py": "the comparison of held-out images",
    "data_pipeline": "the images",
}
_MAY_PASS = {  # what a file system of a network says while it is away: the same command may work in a minute
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.ECONNRESET)
}
_LONGEST_QUOTE = 300  # characters of another library's words
_MOMENT_SECONDS = 5.0


class ExitCode(IntEnum):
    """What a command exits with; :data:`EXIT_CODES` says it to users."""

    DONE = 0
    FAILED = 1
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
    if hasattr(sys.stdout, "reconfigure"):  # a file's name may have bytes that no encoding has
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield outcome
    except KeyboardInterrupt:
        outcome.exit_code = ExitCode.INTERRUPTED
    except Stopped as stopped:
        outcome.exit_code = ExitCode.STOPPED
        if os.environ.get("RANK", "0") == "0":
            print(f"partial-fc: {stopped}", file=sys.stderr, flush=True)
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None and os.environ.get("WORLD_SIZE", "1") != "1":
            time.sleep(2 * _MOMENT_SECONDS)
        if refusal is None or os.environ.get("PARTIAL_FC_TRACEBACK") == "1":
            raise
        outcome.exit_code, said = refusal
        is_first = os.environ.get("LOCAL_RANK", "0") == "0"
        if not is_first:
            time.sleep(_MOMENT_SECONDS)
        if is_first or outcome.exit_code in (ExitCode.BAD_DATA, ExitCode.FAILED):
            print("partial-fc:", " ".join(said.split()), file=sys.stderr, flush=True)


def _refusal(error: Exception) -> tuple[ExitCode, str] | None:
    """The exit code and the words for an error that a user can mend; None for any other."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    advice = "".join(f". {words}" for kind, words in _ADVICE.items() if kind in kinds)
    if _is_out_of_memory(error):
        part = _part(error)
        return ExitCode.BAD_CONFIG, f"out of memory{part and f' in {part}'} ({_quoted(error)}). {_MEMORY_ADVICE}"
    if isinstance(error, ConfigError):
        return ExitCode.BAD_CONFIG, str(error)
    if isinstance(error, OverflowError):
        return ExitCode.BAD_CONFIG, f"a number of the configuration is too large or too small ({_quoted(error)})"
    if "TorchDynamoException" in kinds:
        from partial_fc.compiling import reason_of  # torch is there by now

        return ExitCode.BAD_CONFIG, f"the network cannot be compiled here ({reason_of(error)}){advice}"
    if "TrainingDiverged" in kinds:
        return ExitCode.DIVERGED, f"{error}{advice}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ExitCode.BAD_DATA, _no_space(error)
    if isinstance(error, OSError) and error.errno in _MAY_PASS:
        return ExitCode.FAILED, f"{error}{advice}. The disk, or the network to it, may be away for a while"
    return (ExitCode.BAD_DATA, f"{error}{advice}") if isinstance(error, ValueError | OSError) else None


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error))))


def _part(error: Exception) -> str:
    """What was being done, as far as the way to the error tells; empty if it does not."""
    files = [frame.filename for frame in reversed(traceback.extract_tb(error.__traceback__))]
    found = (words for file in files for place, words in _PARTS.items() if f"/{place}" in file)
    return next(found, "")


def _quoted(error: Exception) -> str:
    """The beginning of another library's message, in one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= _LONGEST_QUOTE else f"{words[:_LONGEST_QUOTE]} ..."


def _no_space(error: OSError) -> str:
    if error.filename is None:
        return f"{error}: a disk that this command writes to is full"
    free = shutil.disk_usage(Path(error.filename).absolute().parent).free
    return f"no space for {error.filename}: {free:,} bytes are free there. Make room, or write to another disk"
