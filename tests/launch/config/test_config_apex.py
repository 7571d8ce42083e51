"""What of apex a configuration may name, and what is said where apex is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny

from launch import cli
from launch.config.apex import has_apex, refuse_missing_apex
from launch.config.backbone import BackboneConfig
from launch.config.loading import ConfigError
from launch.config.run import Config, OptimizerConfig
from partial_fc.backbones.layer_norm import layer_norms

NEEDS: list[tuple[dict[str, Any], str]] = [
    ({"optimizer": {"name": "apex_sgd"}}, "take sgd, torch's own, which is fused on GPUs too"),
    ({"optimizer": {"name": "apex_adamw"}}, "take adamw, torch's own, which is fused on GPUs too"),
    ({"optimizer": {"name": "apex_lamb"}}, "take adamw, which is fused on GPUs too: torch has no LAMB"),
    ({"optimizer": {"larc": 0.02}}, "leave it out: torch has none"),
    ({"backbone": {"name": "vit_t", "layer_norm": "apex"}}, "leave it out: torch's own has the same weights"),
]
without_apex = pytest.mark.skipif(has_apex(), reason="apex is installed here")


def config_of(sections: dict[str, Any]) -> Config:
    return Config.model_validate({"data": {"train": "train.rec"}, **sections})


@without_apex
@pytest.mark.parametrize(("sections", "instead"), NEEDS)
def test_what_needs_apex_is_refused_with_what_does_without(sections: dict[str, Any], instead: str) -> None:
    with pytest.raises(ConfigError) as refused:
        refuse_missing_apex(config_of(sections))
    section, keys = next(iter(sections.items()))
    assert str(refused.value).startswith(f"{section}.{list(keys)[-1]}")
    assert "NVIDIA's PyTorch image (nvidia/pytorch)" in str(refused.value)
    assert f"which has it, or {instead}" in str(refused.value)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_torchs_own_need_nothing(name: str) -> None:
    refuse_missing_apex(config_of({"optimizer": {"name": name}, "backbone": {"name": "vit_t", "layer_norm": "torch"}}))


@without_apex
def test_the_command_refuses_before_anything_is_made(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tiny.write_config(tmp_path / "config.yaml", tiny.tree(tmp_path, tmp_path / "run"))
    assert cli.main(["train", str(config), "--set", "optimizer.name=apex_lamb"]) == 2
    printed = capfd.readouterr()
    assert printed.err.startswith("partial-fc: optimizer.name apex_lamb needs NVIDIA's apex")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_larc_goes_with_sgd() -> None:
    for name in ("sgd", "apex_sgd"):
        assert OptimizerConfig.model_validate({"name": name, "larc": 0.001}).larc == 0.001
    for name in ("adamw", "apex_adamw", "apex_lamb"):
        with pytest.raises(ValueError, match=f"larc goes with sgd and apex_sgd, not with {name}"):
            OptimizerConfig.model_validate({"name": name, "larc": 0.001})


def test_the_moments_are_those_that_an_optimizer_keeps() -> None:
    kept = {("sgd", 0.9): 1, ("sgd", 0.0): 0, ("apex_sgd", 0.0): 1, ("adamw", 0.9): 2, ("apex_lamb", 0.9): 2}
    for (name, momentum), moments in kept.items():
        assert OptimizerConfig.model_validate({"name": name, "momentum": momentum}).moments == moments


def test_a_layer_norm_is_a_vits() -> None:
    with pytest.raises(ValueError, match="r50 has no layer_norm"):
        BackboneConfig(name="r50", layer_norm="torch")
    section = BackboneConfig(name="vit_t", layer_norm="apex", drop_path=0.0)
    assert section.options() == {"layer_norm": "apex", "drop_path": 0.0}
    assert section.of_torch_alone().options() == {"drop_path": 0.0}


def test_a_layer_norm_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no layer norm is called 'batch': expected one of torch, apex"):
        layer_norms("batch")
    if not has_apex():
        with pytest.raises(ValueError, match=r"needs NVIDIA's apex .*nvidia/pytorch.*, or layer_norm 'torch'"):
            layer_norms("apex")
