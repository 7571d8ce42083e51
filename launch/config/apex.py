"""What of a configuration needs NVIDIA's apex, and the refusal where it is not installed; nothing is imported of it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from launch.config.loading import ConfigError
from launch.config.run import Config

_MODULES = ("apex", "amp_C", "fused_layer_norm_cuda")  # it, and its kernels; the name apex alone is another's too
_INSTEAD = {
    "apex_sgd": "sgd, torch's own, which is fused on GPUs too",
    "apex_adamw": "adamw, torch's own, which is fused on GPUs too",
    "apex_lamb": "adamw, which is fused on GPUs too: torch has no LAMB",
}


def has_apex() -> bool:
    """Whether NVIDIA's apex is installed with its kernels."""
    return all(find_spec(module) for module in _MODULES)


def refuse_missing_apex(config: Config) -> None:
    """ConfigError naming the first key that needs apex where there is none, and what does without."""
    needs = next(_needs(config), None)
    if needs is not None and not has_apex():
        key, instead = needs
        raise ConfigError(
            f"{key} needs NVIDIA's apex with its CUDA kernels, which is not installed here. Train in NVIDIA's PyTorch "
            f"image (nvidia/pytorch), which has it, or {instead}"
        )


def _needs(config: Config) -> Iterator[tuple[str, str]]:
    """Each key that needs apex, and what to do without."""
    if (name := config.optimizer.name) in _INSTEAD:
        yield f"optimizer.name {name}", f"take {_INSTEAD[name]}"
    if config.optimizer.larc is not None:
        yield "optimizer.larc", "leave it out: torch has none; optimizer.clip_norm bounds the whole gradient"
    if config.backbone.layer_norm == "apex":
        yield "backbone.layer_norm apex", "leave it out: torch's own has the same weights"
