"""Prints, one a line, the packages that partial-fc needs and that this Python does not have, in any version.

NVIDIA's images bring builds of torch and DALI of their own, under versions of their own: those are left as they are.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import tomllib

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
PROVIDED_BY = {"nvidia-dali-cuda130": ("nvidia-dali-cuda120", "nvidia-dali-cuda110")}  # one DALI, several names


def is_here(name: str) -> bool:
    """Whether a distribution called ``name``, or one that stands for it, is installed."""
    for each in (name, *PROVIDED_BY.get(name, ())):
        try:
            distribution(each)
        except PackageNotFoundError:
            continue
        return True
    return False


def missing() -> list[str]:
    """The requirements of the project that nothing installed answers, as pyproject.toml has them."""
    requirements: list[str] = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {each: re.split(r"[^\w.-]", each)[0] for each in requirements}
    return [each for each, name in names.items() if not is_here(name)]


if __name__ == "__main__":
    sys.stdout.writelines(f"{each}\n" for each in missing())
