"""The command ``partial-fc top``: a run watched from a terminal, by its folder or by its ranks' endpoints."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.live import Live

from launch.config.loading import ConfigError
from launch.config.section import user_path
from launch.errors import ExitCode
from launch.watching.course import Course
from launch.watching.view import View


class Watched(Protocol):
    """A run, wherever it is read."""

    def course(self) -> Course:
        """What is known of the run by now."""


def run(arguments: argparse.Namespace) -> int:
    """Show the run until it is over or the reader has seen enough; once where nobody can watch."""
    watched, console = _watched(arguments.watched), Console(highlight=False, markup=False)
    course = watched.course()  # what cannot be watched is refused before the screen is taken
    if console.is_terminal and not arguments.once:
        course = _followed(watched, course, console, arguments.every)
    console.print(View(course, time.time()))
    return ExitCode.DONE


def _followed(watched: Watched, course: Course, console: Console, every_seconds: float) -> Course:
    """The last course that was shown; ends with the run, or with Ctrl-C."""
    try:
        with Live(View(course, time.time()), console=console, screen=True, auto_refresh=False) as live:
            while not course.is_over:
                time.sleep(every_seconds)
                course = watched.course()
                live.update(View(course, time.time()), refresh=True)
    except KeyboardInterrupt:
        pass  # how one leaves it
    return course


def _watched(words: Sequence[str]) -> Watched:
    """A folder, or endpoints. ConfigError for a mixture and for several folders."""
    if all(_is_address(word) for word in words):
        from launch.watching.endpoints import WatchedEndpoints

        return WatchedEndpoints(words)
    if len(words) > 1:
        raise ConfigError(f"top watches one run: name one folder, or endpoints alone, not {' '.join(words)}")
    from launch.watching.folder import WatchedFolder

    return WatchedFolder(_path(words[0]))


def _is_address(word: str) -> bool:
    """Whether ``word`` is a URL, or HOST:PORT and no folder."""
    return "://" in word or (re.fullmatch(r"\S+:\d+(/\S*)?", word) is not None and not Path(word).exists())


def _path(word: str) -> Path:
    try:
        return user_path(word)
    except ValueError as error:
        raise ConfigError(str(error)) from error
