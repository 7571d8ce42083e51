"""The templates: all of them are installed, and a value that is missing is an error."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from launch.pages import page

PAGES = Path(page.__file__).parent
ROOT = PAGES.parents[1]


def test_every_template_is_package_data() -> None:
    found = re.search(r'^"launch.pages" = (\[.*\])', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    packed = {file for pattern in ast.literal_eval(found[1]) for file in PAGES.glob(pattern)}
    assert packed == {file for file in PAGES.iterdir() if file.is_file() and file.suffix != ".py"}


def test_a_value_that_a_template_lacks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="title"):
        page.write_page(tmp_path / "page.html", "page.html")
