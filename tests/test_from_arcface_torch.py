"""docs/from_arcface_torch.md: its keys are the importer's, its commands parse, its YAML loads, its links lead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from fences import DOCS, broken_links, config_keys, fences, refuse_what_does_not_parse, rows, sections, spans

from launch.config.arcface_torch import TRANSLATED, TWINS, WITHOUT_TWIN, translated_config
from launch.config.loading import load_config
from launch.config.run import Config
from partial_fc.backbones import BACKBONES

PAGE = (DOCS / "from_arcface_torch.md").read_text()
KEYS = {spans(theirs)[0]: (spans(ours), note) for theirs, ours, note in rows(PAGE, "Keys")}


def test_every_key_of_the_page_is_the_importers_and_every_key_of_the_importer_is_on_the_page() -> None:
    assert set(KEYS) == set(TWINS) | set(TRANSLATED) | set(WITHOUT_TWIN)
    assert len(KEYS) == len(rows(PAGE, "Keys"))
    for theirs, ours in TWINS.items():
        assert KEYS[theirs][0] == [ours], theirs
    for theirs, several in TRANSLATED.items():
        assert KEYS[theirs][0] == list(several), theirs
    for theirs, reason in WITHOUT_TWIN.items():
        assert KEYS[theirs] == ([], reason), theirs


def test_every_key_of_ours_is_one_of_the_configuration() -> None:
    known = config_keys()
    for ours, _ in KEYS.values():
        assert set(ours) <= known
    for span in spans(PAGE):
        if re.fullmatch(r"[a-z]+\.[a-z_]+(: .*)?", span) and span.split(".")[0] in Config.model_fields:
            assert span.split(":")[0] in known, span


@pytest.mark.parametrize("text", sections(PAGE))
def test_the_yaml_is_part_of_a_config(text: str, tmp_path: Path) -> None:
    tree = yaml.safe_load(text)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**tree, "data": {"train": "x", **tree.get("data", {})}}))
    load_config(path)


def test_every_command_parses_and_every_link_leads() -> None:
    refuse_what_does_not_parse(PAGE)
    assert broken_links(PAGE, DOCS) == []
    assert fences(PAGE)


def test_the_networks_are_what_the_importer_makes_of_their_names(tmp_path: Path) -> None:
    shown = set()
    for theirs, ours in rows(PAGE, "Networks"):
        job = tmp_path / "job.py"
        job.write_text(f"config.network = {spans(theirs)[0]!r}\n")
        section = yaml.safe_load(translated_config(job, 8))["backbone"]
        expected = {**yaml.safe_load(spans(ours)[0])["backbone"], "embedding_dim": 512, "autocast": "float32"}
        assert section == expected, theirs
        shown.add(section["name"])
    assert shown == set(BACKBONES)
