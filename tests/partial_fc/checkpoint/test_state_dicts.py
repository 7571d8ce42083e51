"""Weights as others wrap them: told which network they are of, loaded out of any wrapping, or refused in a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from partial_fc.backbones import BACKBONES, backbone
from partial_fc.checkpoint.loading import load_backbone
from partial_fc.checkpoint.networks import Network, network_of
from partial_fc.checkpoint.state_dicts import weights_in

State = dict[str, Tensor]


def small(name: str = "r18", *, width: int = 4, embedding_dim: int = 16, input_size: int = 32) -> nn.Module:
    return backbone(name, width=width, embedding_dim=embedding_dim, input_size=input_size)


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + key: value for key, value in state.items()}


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "DDP": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "DDP of compiled": prefixed("module._orig_mod."),
    "compiled part": lambda state: {key.replace("layer1.", "layer1._orig_mod."): v for key, v in state.items()},
    "a module of a larger one": lambda state: {**prefixed("model.net.")(state), "head.weight": torch.ones(3, 2)},
    "state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "state_dict of DDP": lambda state: {"state_dict": prefixed("module.")(state), "optimizer": {"state": {}}},
    "arcface_torch's checkpoint": lambda state: {
        "epoch": 3,
        "state_dict_backbone": state,
        "state_dict_softmax_fc": {"weight": torch.ones(3, 16)},
        "state_optimizer": {"state": {}, "param_groups": []},
    },
    "nested twice": lambda state: {"student": {"state_dict": state}},
    "without counters": lambda state: {key: v for key, v in state.items() if not key.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_load_out_of_every_wrapping(tmp_path: Path, wrapping: str) -> None:
    given, found = small(), small()
    torch.save(WRAPPINGS[wrapping](given.state_dict()), tmp_path / "weights.pth")
    load_backbone(tmp_path / "weights.pth", found)
    for key, value in given.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("given", "wanted", "said"),
    [
        (
            small("mbf"),
            small("r18"),
            "they are those of mbf of width 4 for images of 32 pixels, with embeddings of 16 dimensions; "
            "conv1.weight is missing and 1",
        ),
        (
            small(width=8),
            small(),
            r"those of r18 of width 8 .*; conv1.weight is \(8, 3, 3, 3\), not \(4, 3, 3, 3\) and \d+ more like it",
        ),
        (small("r18"), small("r34"), r"those of r18 .*; layer1.2.bn1.weight is missing and 1\d\d more"),
        (small("r34"), small("r18"), r"those of r34 .*; layer1.2.bn1.weight is unexpected and 1\d\d more"),
    ],
)
@pytest.mark.parametrize(
    ("wrapping", "place"),
    [
        ("plain", ""),
        ("DDP of compiled", r", with keys such as module\._orig_mod\.\S+,"),
        ("state_dict of DDP", r": state_dict, with keys such as module\.\S+,"),
        ("arcface_torch's checkpoint", ": state_dict_backbone"),
    ],
)
def test_weights_of_another_network_are_refused_in_a_line_that_says_whose_they_are(
    tmp_path: Path, wrapping: str, place: str, given: nn.Module, wanted: nn.Module, said: str
) -> None:
    torch.save(WRAPPINGS[wrapping](given.state_dict()), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rf"weights\.pth{place} do not fit this backbone: .*{said}") as caught:
        load_backbone(tmp_path / "weights.pth", wanted)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_weights_of_no_network_here_are_refused_in_a_line(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"those of no network here; conv1\.weight is missing and 186 more like it"):
        load_backbone(tmp_path / "weights.pth", small())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"teacher": {"w": torch.ones(1)}, "student": {"w": torch.ones(1)}}, "several dictionaries, teacher, student:"),
        ([torch.ones(1)], "holds no tensors by name"),
        ({"epoch": 3}, "holds no tensors by name"),
        ({"state_dict": {}}, "holds no tensors by name"),
        (torch.ones(3), "holds no tensors by name"),
    ],
)
def test_a_file_without_one_networks_tensors_is_refused(tmp_path: Path, content: object, said: str) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rf"weights\.pth .*{said}"):
        weights_in(tmp_path / "weights.pth")


def test_a_dictionary_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="holds no tensors by name"):
        weights_in(tmp_path / "weights.pth")


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "r2060"])
def test_every_published_network_is_told_from_its_shapes(name: str) -> None:
    with torch.device("meta"):
        state = backbone(name).state_dict()
    told = network_of(state)
    assert told is not None
    assert told[0] == Network(name, 64, 512, 112)


@pytest.mark.parametrize("name", ["r18", "mbf", "mbf_large", "vit_t"])
@pytest.mark.parametrize(
    ("width", "embedding_dim", "input_size"), [(4, 16, 32), (8, 16, 64), (16, 24, 224), (64, 8, 112)]
)
def test_a_network_of_any_size_is_told_from_its_shapes(
    name: str, width: int, embedding_dim: int, input_size: int
) -> None:
    with torch.device("meta"):
        state = backbone(name, width=width, embedding_dim=embedding_dim, input_size=input_size).state_dict()
    told = network_of(state)
    assert told is not None
    network, entries = told
    assert network == Network(name, width, embedding_dim, input_size)
    assert entries.keys() == state.keys()
