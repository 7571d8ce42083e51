"""Every block of code of the documents is run, or read by what reads it in earnest, or named with the reason."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny
import yaml
from document_blocks import INDENTED, ROOT, Block, blocks, pages
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from programs import NAMED, PARSED, RUN, check
from scratch import Scratch
from shell_lines import commands

from launch import cli
from launch.config.loading import load_config
from launch.config.run import Config

SMALLER = {"4_000_000": "4_000", "--identities 1000000": "--identities 20"}  # so that a block takes moments here
PLACE = re.compile(r"\w+(/[\w.-]+)+|\w+\.jpg")  # a text of a script that names a file or a folder
ARGUMENTS = {"metrics.jsonl": "RUN", "source_at(": "DIR"}  # of scripts that have one, told by what they read


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny sets and a run on them, which all pages share."""
    folder = tiny.write_data(tmp_path_factory.mktemp("origin"))
    config = tiny.write_config(folder / "config.yaml", tiny.tree(folder, folder / "run"))
    assert cli.main(["train", str(config), "--nproc", "1"]) == 0
    return folder


@pytest.fixture
def scratch(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scratch:
    """The folder of a page, and the folder where its commands are given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["script.py"])
    return Scratch(tmp_path, origin)


def smaller(block: Block) -> str:
    return re.sub("|".join(SMALLER), lambda found: SMALLER[found[0]], block.text)


def run_shell(block: Block, scratch: Scratch) -> list[str]:
    return [check(command, scratch) for command in commands(smaller(block))]


def run_python(block: Block, scratch: Scratch) -> list[str]:
    text = smaller(block)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and PLACE.fullmatch(node.value):
            scratch.provide(node.value)
    words = [name for mark, name in ARGUMENTS.items() if mark in text and "sys.argv" in text]
    assert all(scratch.provide(word) for word in words)
    sys.argv[1:] = words
    script = scratch.folder / "script.py"
    script.write_text(text)
    runpy.run_path(str(script), run_name="__main__")
    return [RUN]


def load_yaml(block: Block, scratch: Scratch) -> list[str]:
    tree = yaml.safe_load(block.text)
    assert isinstance(tree, dict), "expected keys: a configuration or a part of one"
    assert set(tree) <= set(Config.model_fields), (
        "this is no part of a configuration: call it by what it is, and write into KINDS of "
        "tests/docs/test_code_blocks.py how it is read"
    )
    whole = {**tree, "data": {"train": "data/train", **tree.get("data", {})}}
    load_config(tiny.write_config(scratch.folder / "part.yaml", whole))
    return [PARSED]


def read_model_config(block: Block, scratch: Scratch) -> list[str]:
    """Fields of Triton's ModelConfig, numbered and typed as in its model_config.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    file.message_type.add(name="ModelDynamicBatching")
    message, field = file.message_type.add(name="ModelConfig"), descriptor_pb2.FieldDescriptorProto
    optional = field.LABEL_OPTIONAL
    message.field.add(name="platform", number=2, type=field.TYPE_STRING, label=optional)
    message.field.add(name="max_batch_size", number=4, type=field.TYPE_INT32, label=optional)
    message.field.add(
        name="dynamic_batching",
        number=11,
        type=field.TYPE_MESSAGE,
        label=optional,
        type_name=".inference.ModelDynamicBatching",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
    text_format.Parse(block.text, made())
    return [PARSED]


def leave(block: Block, scratch: Scratch) -> list[str]:
    return [NAMED]


KINDS: dict[str, Callable[[Block, Scratch], list[str]]] = {
    "bash": run_shell,
    "python": run_python,
    "yaml": load_yaml,
    "protobuf": read_model_config,
    "text": leave,  # what a program prints, formulas, trees
}


def checked(block: Block, scratch: Scratch) -> list[str]:
    """What was done with each command of ``block``, or with the whole of it."""
    if block.language.startswith("{"):  # a directive of the site: `make docs` reads it
        return [NAMED]
    assert block.language != INDENTED, "fence it, and name its language"
    assert block.language, f"name its language behind the fence, one of {', '.join(KINDS)}"
    assert block.language in KINDS, (
        f"no test knows the language {block.language!r}: name one of {', '.join(KINDS)} ('text' is for output) "
        "or write into KINDS of tests/docs/test_code_blocks.py how it is checked"
    )
    return KINDS[block.language](block, scratch)


@contextmanager
def told(block: Block) -> Iterator[None]:
    """An error in a block, with the block's place."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise AssertionError(f"{block.place}: {error}\n{block.text}") from error


@pytest.mark.parametrize("page", pages())
def test_the_blocks_of_a_page_hold(page: str, scratch: Scratch) -> None:
    for block in blocks(page):
        with told(block):
            checked(block, scratch)


def test_the_commits_that_contributing_points_at_are_found(scratch: Scratch) -> None:
    found = re.findall(r"`(git (?:log|show) [^`]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(found) >= 6
    assert {check(commands(line)[0], scratch) for line in found} == {RUN}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```\nmake\n```", "name its language behind the fence"),
        ("    make\n", "fence it, and name its language"),
        ("```ruby\nputs 1\n```", "no test knows the language 'ruby'"),
        ("```bash\nrm -rf runs\n```", "no test knows the program 'rm'"),
        ("```bash\npartial-fc train configs/omniglot.yaml --sett seed=1\n```", "its own parser refuses it"),
        ("```bash\npartial-fc train configs/omniglot.yaml --set sed=1\n```", "unknown key 'sed'"),
        ("```bash\npython -m benchmarks.losses --lisst\n```", "its own parser refuses it"),
        ("```bash\nmake omniglott\n```", "omniglott"),
        ("```bash\nkubectl apply --kustomize launch/cluster/gone\n```", "launch/cluster/gone is no file"),
        ("```bash\npytest tests/gone\n```", "tests/gone is no file"),
        ("```bash\npip install 'partial-fc[gone]'\n```", "pyproject.toml has no extra gone"),
        ("```bash\npartial-fc checkpoint show runs/mine/gone\n```", "exit code 3"),
        ("```yaml\nobjective: {name: adacoss}\n```", "adacoss"),
        ("```yaml\nkind: Job\n```", "this is no part of a configuration"),
        ("```python\nimport partial_fc\npartial_fc.loaded\n```", "loaded"),
        ("```protobuf\nplattform: 'x'\n```", "plattform"),
    ],
)
def test_a_block_that_is_wrong_is_refused(text: str, said: str, scratch: Scratch) -> None:
    (block,) = blocks("page.md", text)
    with pytest.raises(Exception, match=re.escape(said)):
        checked(block, scratch)


def test_a_line_of_shell_has_the_words_that_a_shell_hands_over() -> None:
    text = 'cd a && X=1 /usr/bin/time -v make b  # why\npython -m c --d "e f" \\\n    > out.txt; git log | head\n'
    assert [(shlex.join(each.words), str(each.folder)) for each in commands(text)] == [
        ("make b", "a"),
        ("python -m c --d 'e f'", "a"),
        ("git log", "a"),
        ("head", "a"),
    ]
