"""The section ``backbone``: the network, by its name.

The networks themselves come with torch, whose import takes seconds that nobody waits for to learn of a wrong word: a
test holds the names and options here against theirs.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from launch.config.section import Section, UserPath

NETWORKS: dict[str, tuple[str, ...]] = {  # each with the options of its own family
    **dict.fromkeys(("r18", "r34", "r50", "r100", "r200", "mbf", "mbf_large"), ()),
    **dict.fromkeys(("vit_t", "vit_s", "vit_b", "vit_l", "vit_h"), ("drop_path", "mask_ratio", "layer_norm")),
    "r2060": (),
}


class BackboneConfig(Section):
    """The network between image and embedding."""

    name: str = Field("r50", description="r18, r34, r50, r100, r200, r2060, mbf, mbf_large, vit_t to vit_h")
    embedding_dim: int = Field(512, ge=2, description="D, the numbers of an embedding and of a class row")
    width: int = Field(64, ge=8, description="channels of the first stage; 64 is the published network")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of features left out, before the embedding")
    drop_path: float | None = Field(None, ge=0, lt=1, description="a vit's; left out: the published network's")
    mask_ratio: float | None = Field(None, ge=0, lt=1, description="likewise: the share of tokens hidden in training")
    layer_norm: Literal["torch", "apex"] | None = Field(
        None, description="a vit's; apex: NVIDIA's fused one, where it is installed"
    )
    checkpoint_activations: bool = Field(False, description="less memory for a third more time")
    compile: Literal["auto", True, False] = Field("auto", description="torch.compile; auto: where a compiler is found")
    autocast: Literal["bfloat16", "float32"] = Field("bfloat16", description="what the network computes in")
    weights: UserPath | None = Field(
        None, description="to start from: a run's folder or a state dict, ours or arcface_torch's"
    )

    @field_validator("name")
    @classmethod
    def _refuse_an_unknown_name(cls, given: str) -> str:
        if given not in NETWORKS:
            nearest = get_close_matches(given, NETWORKS, n=1, cutoff=0.0)[0]
            raise ValueError(f"no backbone is called {given!r}; the nearest is {nearest!r} of {', '.join(NETWORKS)}")
        return given

    @model_validator(mode="after")
    def _refuse_what_the_network_lacks(self) -> BackboneConfig:
        for option in self.options():
            if option not in NETWORKS[self.name]:
                raise ValueError(f"{self.name} has no {option}: leave {option} out, or choose a network that has it")
        return self

    def options(self) -> dict[str, Any]:
        """The options of the network's own family that are given."""
        given = {"drop_path": self.drop_path, "mask_ratio": self.mask_ratio, "layer_norm": self.layer_norm}
        return {name: value for name, value in given.items() if value is not None}

    def of_torch_alone(self) -> BackboneConfig:
        """The same network, of the same weights, where apex need not be."""
        return self.model_copy(update={"layer_norm": None})
