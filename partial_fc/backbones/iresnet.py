"""IResNet: the residual network of the ArcFace line, with arcface_torch's state-dict keys and shapes.

The published widths are ``width=64`` and ``input_size=112``; both are parameters here, so that a narrow network
for small images trains on a CPU. A block is pre-normalised (bn, conv, bn, prelu, conv, bn) and its *second*
convolution carries the stride: 1801.07698, section 3.1 ("improved residual unit"), after 1610.02915.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from partial_fc.backbones.prelu import PReLU
from partial_fc.backbones.recompute import recomputed

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 200: (6, 26, 60, 6)}
DEEPEST = (3, 128, 896, 3)  # r2060


class IBasicBlock(nn.Module):
    """``(n, channels_in, h, w)`` to ``(n, channels_out, h / stride, w / stride)``; no activation after the sum."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.prelu = PReLU(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """The shortcut plus the residual of ``x``."""
        residual = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return residual + shortcut  # type: ignore[no-any-return]


class IResNet(nn.Module):
    """Embeddings ``(n, embedding_dim)`` of images ``(n, 3, input_size, input_size)``, not normalised.

    ``layers`` counts the blocks of the four stages, each of which halves the image and, after the first,
    doubles the ``width``. ``checkpoint_activations`` keeps only the blocks' inputs for the backward pass and
    computes the rest again: about a third more time for a fraction of the activations' memory.
    The last BatchNorm has no learned scale (weight fixed to 1), as in arcface_torch.
    """

    def __init__(
        self,
        layers: Sequence[int],
        *,
        embedding_dim: int = 512,
        input_size: int = 112,
        width: int = 64,
        dropout: float = 0.0,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.prelu = PReLU(width)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(widths[i], widths[i + 1], blocks) for i, blocks in enumerate(layers)
        )
        self.bn2 = nn.BatchNorm2d(8 * width)
        self.dropout = nn.Dropout(dropout)
        final_size = -(-input_size // 16)
        self.fc = nn.Linear(8 * width * final_size**2, embedding_dim)
        self.features = nn.BatchNorm1d(embedding_dim)
        self.features.weight.requires_grad = False
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.1)

    def forward(self, images: Tensor) -> Tensor:
        """The embeddings of ``images``."""
        x = self.prelu(self.bn1(self.conv1(images)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = recomputed(block, x) if self._checkpoints() else block(x)
        x = torch.flatten(self.dropout(self.bn2(x)), 1)
        return self.features(self.fc(x))  # type: ignore[no-any-return]

    def _checkpoints(self) -> bool:
        return self.checkpoint_activations and self.training


def _stage(channels_in: int, channels_out: int, blocks: int) -> nn.Sequential:
    first = IBasicBlock(channels_in, channels_out, stride=2)
    return nn.Sequential(first, *(IBasicBlock(channels_out, channels_out, stride=1) for _ in range(blocks - 1)))
