"""The commands of a block of shell: their words, as a shell would hand them over."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

OPERATORS = {"&&", "||", ";", "|", "&"}
REDIRECTIONS = {">", ">>", "<"}
WRAPPERS = (("/usr/bin/time", "-v"), ("sudo",), ("nohup",))  # what follows is a command by itself
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A command: its words, and where a ``cd`` before it went to.

    That is a folder below the project's root, or a working tree of an earlier ``commit``.
    """

    words: list[str]
    folder: PurePosixPath
    commit: str = ""

    @property
    def program(self) -> str:
        return self.words[0].removeprefix(".venv/bin/")


def commands(text: str) -> list[Command]:
    """The commands of ``text``, line by line; what is assigned or redirected, and comments, are left out."""
    found, folder, commit, trees = list[Command](), PurePosixPath(), "", dict[str, str]()
    for line in text.replace("\\\n", "").splitlines():
        for words in _split(line):
            if words[0] == "cd":
                commit = trees.get(words[1], "")
                folder = folder if commit else folder / words[1]
                continue
            if words[:3] == ["git", "worktree", "add"]:
                trees[words[3]] = words[4]
            found.append(Command(words, folder, commit))
    return found


def _split(line: str) -> list[list[str]]:
    without_streams = re.sub(r"\s[12]>(?!&)", " >", re.sub(r"\s[12]?>&[12]", " ", line))
    lexer = shlex.shlex(without_streams, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    parts, skip = [list[str]()], False
    for word in lexer:
        if word in OPERATORS:
            parts.append([])
        elif not skip and word not in REDIRECTIONS:
            parts[-1].append(word)
        skip = word in REDIRECTIONS
    return [_without_wrappers(words) for words in parts if words]


def _without_wrappers(words: list[str]) -> list[str]:
    while len(words) > 1 and ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    for wrapper in WRAPPERS:
        if tuple(words[: len(wrapper)]) == wrapper:
            return _without_wrappers(words[len(wrapper) :])
    return words
