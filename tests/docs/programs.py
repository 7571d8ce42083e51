"""What is done with a command of a document: it runs on tiny data, or is read by its program's own parser, or is named.

``check`` says which of the three it was. AssertionError, which says what to do, for a command that is not right.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

from document_blocks import ROOT
from scratch import Scratch
from shell_lines import Command
from torch.distributed.run import get_args_parser

from launch import cli
from launch.config.loading import load_config

RUN, PARSED, NAMED = "run", "parsed", "named"
PARSED_ONLY = {  # a word of a `partial-fc` command that keeps it from being run here, and why
    "train": "takes minutes; its configuration is loaded, with every --set",
    "profile": "trains",
    "plan": "takes seconds each time, and tests/launch/commands/test_plan.py runs it",
    "export": "takes seconds each time, and tests/launch/commands/test_export.py runs it",
    "--ijb": "its images may not be passed on; tests/launch/protocols runs it",
    "--distractors": "likewise",
    "--pairs=pairs.txt": "a list names images of its own set; tests/launch/evaluation/test_lfw_pairs.py runs it",
    "--nodes": "starts machines; tests/launch/test_nodes.py runs it",
    "127.0.0.1:9410": "wants a run that goes on; tests/launch/commands/test_top.py has one",
}
ELSEWHERE = {  # a program that is not run, and why; the files of this project that its words name must exist
    "kubectl": "wants a cluster; tests/launch/cluster/test_kubernetes.py holds the manifests against the API's schemas",
    "sbatch": "wants Slurm; tests/cluster/slurm.sh has one",
    "docker": "wants Docker; tests/cluster/containers.sh builds and runs the image without it",
    "prometheus": "serves for ever; tests/launch/test_live_monitoring.py starts one",
    "promtool": "is not everywhere; tests/launch/test_monitoring.py runs it where it is",
    "grep": "looks at a process that trains",
}
OUTPUTS = ("--out", "--json", "--picture", "--sheet", "--document")
SETTINGS = (ROOT / "pyproject.toml").read_text()  # Python 3.10 has no reader of TOML
FILE = re.compile(r"(?:[a-z_]+/)+[\w.-]+|[\w-]+\.(?:ya?ml|json|sh|sbatch)")


def check(command: Command, scratch: Scratch) -> str:
    """``run``, ``parsed`` or ``named``: what was done with ``command``."""
    if command.program in ELSEWHERE:
        return _named(command)
    assert command.program in PROGRAMS, (
        f"no test knows the program {command.program!r}: write into PROGRAMS of tests/docs/programs.py how its lines "
        "are checked, or into ELSEWHERE why they are not run"
    )
    return PROGRAMS[command.program](command, scratch)


def _named(command: Command) -> str:
    for word in command.words[1:]:
        path = word.rpartition("=")[2]
        if FILE.fullmatch(path) and (command.folder.parts or "/" in path):
            assert (ROOT / command.folder / path).exists(), f"{path} is no file of this project"
    return NAMED


def _partial_fc(command: Command, scratch: Scratch) -> str:
    words = command.words[1:]
    arguments = _parsed(cli.command_parser().parse_args, words)
    if isinstance(getattr(arguments, "config", None), Path):
        _load_config(str(arguments.config), arguments.set, scratch)
    if any(word in PARSED_ONLY or f"{before}={word}" in PARSED_ONLY for before, word in pairwise(["", *words])):
        return PARSED
    words = [found for word in words for found in _expanded(word, scratch)]
    for before, word in pairwise(words):
        if not word.startswith("-") and before not in OUTPUTS:
            scratch.provide(word)  # what no rule knows is an output, or the command says that it is missing
    code = cli.main([*words, *(["--nproc", "1"] if hasattr(arguments, "nproc") else [])])
    assert code == 0, f"exit code {code}"
    return RUN


def _expanded(word: str, scratch: Scratch) -> list[str]:
    """The files that a pattern stands for, as a shell has it; a place from the root on is one in the page's folder."""
    word = word.removeprefix("/")
    found = sorted(path.name for path in scratch.folder.glob(word)) if "*" in word else []
    return found or [word]


def _load_config(name: str, changes: list[str], scratch: Scratch) -> None:
    """A configuration of the project as it stands; in place of a reader's own a tiny one."""
    path = ROOT / name
    if not path.exists():
        assert scratch.provide(name), f"no rule of {Scratch.__module__} knows the configuration {name}"
        path = scratch.folder / name
    load_config(path, changes)


def _parsed(parse: Callable[[list[str]], argparse.Namespace], words: list[str]) -> argparse.Namespace:
    try:
        return parse(words)
    except SystemExit as end:
        raise AssertionError("its own parser refuses it: see what it says on standard error") from end


def _spec(module: str) -> ModuleSpec | None:
    """What ``python -m module`` runs, if there is one."""
    found = find_spec(module)
    return find_spec(f"{module}.__main__") if found is not None and found.submodule_search_locations else found


class _ParsedError(Exception):
    """The words were taken."""


def _python(command: Command, scratch: Scratch) -> str:
    match command.words[1:]:
        case ["-c", code, *_]:
            compile(code, "-c", "exec")
            return PARSED
        case ["-m", module, *_] if command.commit:
            _git("cat-file", "-e", f"{command.commit}:{module.replace('.', '/')}.py")
            return PARSED
        case ["-m", module, *words] if spec := _spec(module):
            _read_by_its_own_parser(spec.name, words)
            return PARSED
    raise AssertionError("expected python -c CODE or python -m MODULE, of a module that is there")


def _read_by_its_own_parser(module: str, words: list[str]) -> None:
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, argv: list[str]) -> NoReturn:
        _parsed(lambda each: parse_args(parser, each), argv)
        raise _ParsedError

    with patch.object(argparse.ArgumentParser, "parse_args", parse_and_stop):
        try:
            import_module(module).main(words)
        except _ParsedError:
            return
    raise AssertionError(f"{module}.main parses nothing")


def _torchrun(command: Command, scratch: Scratch) -> str:
    arguments = _parsed(get_args_parser().parse_args, command.words[1:])
    assert find_spec(arguments.training_script) is not None
    _load_config(arguments.training_script_args[0], [], scratch)
    return PARSED


def _make(command: Command, scratch: Scratch) -> str:
    words = ["make", "--dry-run", *command.words[1:]]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return PARSED


def _pytest(command: Command, scratch: Scratch) -> str:
    markers = set(re.findall(r'^    "(\w+): ', SETTINGS, re.MULTILINE))
    for before, word in pairwise(command.words):
        if before == "-m":
            assert set(re.findall(r"\w+", word)) - {"and", "or", "not"} <= markers, word
        elif not word.startswith("-") and before not in ("-k", "-n"):
            assert (ROOT / word.partition("::")[0]).exists(), f"{word} is no file of this project"
    return PARSED


def _git_words(command: Command, scratch: Scratch) -> str:
    match command.words[1:]:
        case ["clone", *_]:
            return NAMED
        case ["worktree", "add", _, commit]:
            assert _git("cat-file", "-t", commit) in ("commit\n", "done")
            return PARSED
        case ["log" | "show", *_] as words:
            assert _git(*words), "finds nothing"
            return RUN
    raise AssertionError("expected git clone, log, show or worktree add")


def _git(*words: str) -> str:
    """What git says of the history; "done" where it says nothing, or where the history is not here."""
    if not _has_history():
        return "done"
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout or "done"


@cache
def _has_history() -> bool:
    words = ["git", "rev-parse", "--is-shallow-repository"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout == "false\n"


def _pip(command: Command, scratch: Scratch) -> str:
    table = SETTINGS.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    asked = re.findall(r"\[([\w,]+)\]", " ".join(command.words))
    wrong = {each for names in asked for each in names.split(",")} - set(re.findall(r"^(\w+) = ", table, re.MULTILINE))
    assert not wrong, f"pyproject.toml has no extra {', '.join(wrong)}"
    return NAMED


PROGRAMS: dict[str, Callable[[Command, Scratch], str]] = {
    "partial-fc": _partial_fc,
    "python": _python,
    "python3": _python,
    "torchrun": _torchrun,
    "make": _make,
    "pytest": _pytest,
    "git": _git_words,
    "pip": _pip,
}
