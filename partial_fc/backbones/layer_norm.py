"""Layer norms by name: torch's own, and the fused one of NVIDIA's apex where that is installed."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

Maker = Callable[[int], nn.Module]


def layer_norms(name: str) -> Maker:
    """What makes the layer norm ``name`` of so many dimensions, with ``weight`` and ``bias`` as torch's has them.

    ValueError for a name that is not in ``LAYER_NORMS``, and for ``apex`` where it is not installed.
    """
    if name not in LAYER_NORMS:
        raise ValueError(f"no layer norm is called {name!r}: expected one of {', '.join(LAYER_NORMS)}")
    return LAYER_NORMS[name]()


def _apex() -> Maker:
    try:
        import fused_layer_norm_cuda  # noqa: F401  # its kernels, which it asks for when the first layer is made
        from apex.normalization import FusedLayerNorm
    except ImportError as error:
        raise ValueError(
            f"layer_norm 'apex' needs NVIDIA's apex with its CUDA kernels ({error}): take NVIDIA's PyTorch image "
            "(nvidia/pytorch), or layer_norm 'torch', which has the same weights"
        ) from error
    maker: Maker = FusedLayerNorm
    return maker


LAYER_NORMS: dict[str, Callable[[], Maker]] = {"torch": lambda: nn.LayerNorm, "apex": _apex}
