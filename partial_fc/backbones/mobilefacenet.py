"""MobileFaceNet: the small network of 1804.07573, with the state-dict keys and shapes of arcface_torch's ``mbf``.

That one is twice as wide as the paper's up to its last stage, has one block less there, and groups the channels of
its second convolution by two, where the paper's is depthwise. ``mbf_large`` is four times as wide and twice as deep.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from partial_fc.backbones.prelu import PReLU
from partial_fc.backbones.recompute import recomputed


class MobileFaceNet(nn.Module):
    """Embeddings ``(n, embedding_dim)`` of images ``(n, 3, input_size, input_size)``, not normalised.

    ``blocks`` counts the residual blocks of the four stages; a first stage of one block is a single convolution.
    ``scale`` widens what the stages hand on, not the depthwise convolutions within them. ``width`` is the published
    64; every number of channels is a multiple of it, so that any width gives valid groups.
    Four convolutions halve the image. The last, depthwise one weighs each of the ``ceil(input_size / 16)²`` places
    that are left on its own (the paper's "global depthwise convolution"), where an average would take the corner of
    a face for as telling as its centre.

    ``dropout`` acts before the last linear map; neither the paper nor arcface_torch has it.
    ``checkpoint_activations`` keeps only the inputs of the eight stages for the backward pass.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (1, 4, 6, 2),
        scale: int = 2,
        *,
        embedding_dim: int = 512,
        input_size: int = 112,
        width: int = 64,
        dropout: float = 0.0,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        narrow, wide = scale * width, 2 * scale * width
        first = (
            _Convolution(narrow, narrow, 3, padding=1, groups=width)
            if blocks[0] == 1
            else _Residuals(narrow, inner=2 * width, blocks=blocks[0])
        )
        self.layers = nn.ModuleList(
            [
                _Convolution(3, narrow, 3, stride=2, padding=1),
                first,
                _Bottleneck(narrow, narrow, inner=2 * width, stride=2),
                _Residuals(narrow, inner=2 * width, blocks=blocks[1]),
                _Bottleneck(narrow, wide, inner=4 * width, stride=2),
                _Residuals(wide, inner=4 * width, blocks=blocks[2]),
                _Bottleneck(wide, wide, inner=8 * width, stride=2),
                _Residuals(wide, inner=4 * width, blocks=blocks[3]),
            ]
        )
        self.conv_sep = _Convolution(wide, 8 * width, 1)
        self.features = _Embedding(8 * width, embedding_dim, size=-(-input_size // 16), dropout=dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """The embeddings of ``images``."""
        x = images
        for stage in self.layers:
            x = recomputed(stage, x) if self.checkpoint_activations and self.training else stage(x)
        return self.features(self.conv_sep(x))  # type: ignore[no-any-return]


class _Parts(nn.Module):
    """Modules in a row under the name ``layers``, which arcface_torch's keys have at every level."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class _Convolution(_Parts):
    """Convolution, BatchNorm and, unless ``linear``, a PReLU with a slope per channel."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(channels_out),
            *([] if linear else [PReLU(channels_out)]),
        )


class _Bottleneck(_Parts):
    """Pointwise to ``inner`` channels, depthwise there, pointwise on without an activation (1801.04381)."""

    def __init__(self, channels_in: int, channels_out: int, *, inner: int, stride: int = 1) -> None:
        super().__init__(
            _Convolution(channels_in, inner, 1),
            _Convolution(inner, inner, 3, stride=stride, padding=1, groups=inner),
            _Convolution(inner, channels_out, 1, linear=True),
        )


class _Residual(_Bottleneck):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class _Residuals(_Parts):
    def __init__(self, channels: int, *, inner: int, blocks: int) -> None:
        super().__init__(*(_Residual(channels, channels, inner=inner) for _ in range(blocks)))


class _Embedding(_Parts):
    def __init__(self, channels: int, embedding_dim: int, *, size: int, dropout: float) -> None:
        super().__init__(
            _Convolution(channels, channels, size, groups=channels, linear=True),
            nn.Sequential(nn.Flatten(), nn.Dropout(dropout)),  # together, or the next key would be layers.3
            nn.Linear(channels, embedding_dim, bias=False),
            nn.BatchNorm1d(embedding_dim),
        )
