"""VisionTransformer: 2010.11929 for small faces, with the state-dict keys and shapes of arcface_torch's ``vit_*``.

That one has no class token: the embedding is a linear map of all tokens, whose places are those of a face's parts.
Its MLP's activation is ReLU6. A last row and column of pixels too narrow for a patch is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from partial_fc.backbones.layer_norm import layer_norms
from partial_fc.backbones.recompute import recomputed

PATCH = 9  # pixels
HEADS = 8


class VisionTransformer(nn.Module):
    """Embeddings ``(n, embedding_dim)`` of images ``(n, 3, input_size, input_size)``, not normalised.

    ``depth`` blocks act on tokens of ``tokens_width * width`` dimensions, of which the patches of 9 x 9 pixels give
    one each. In training three things are drawn, for every image by itself:

    - ``drop_path``: the chance that the last block's two branches are left out (stochastic depth, 1603.09382); it rises
      linearly from 0 at the first block.
    - ``mask_ratio``: the share of tokens that no block sees; the learned ``mask_token`` stands in for them at the end.
    - ``dropout``: of the first tokens and behind the linear maps of a block; 0 in all the published networks.

    ``checkpoint_activations`` keeps only the inputs of the blocks for the backward pass. ``layer_norm`` is a name of
    `LAYER_NORMS`; the weights are the same. ValueError for an image smaller than a patch, for tokens whose dimensions
    the 8 heads cannot share, and for a layer norm that is not there.
    """

    def __init__(
        self,
        tokens_width: int,
        depth: int,
        *,
        embedding_dim: int = 512,
        input_size: int = 112,
        width: int = 64,
        dropout: float = 0.0,
        checkpoint_activations: bool = False,
        drop_path: float = 0.1,
        mask_ratio: float = 0.1,
        layer_norm: str = "torch",
    ) -> None:
        super().__init__()
        norm = layer_norms(layer_norm)
        dim, tokens = tokens_width * width, (input_size // PATCH) ** 2
        _check(dim, tokens, drop_path=drop_path, mask_ratio=mask_ratio)
        self.checkpoint_activations = checkpoint_activations
        self.mask_ratio = mask_ratio
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim))
        # Without masks nothing depends on it, and DDP would wait for its gradient.
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim), requires_grad=mask_ratio > 0)
        self.patch_embed = _Patches(dim)
        self.dropout = nn.Dropout(dropout)
        rates = (drop_path * block / max(depth - 1, 1) for block in range(depth))
        self.blocks = nn.ModuleList(Block(dim, norm, dropout=dropout, drop_path=rate) for rate in rates)
        self.norm = norm(dim)
        self.feature = nn.Sequential(
            nn.Linear(tokens * dim, dim, bias=False),
            nn.BatchNorm1d(dim, eps=2e-5),
            nn.Linear(dim, embedding_dim, bias=False),
            nn.BatchNorm1d(embedding_dim, eps=2e-5),
        )
        nn.init.normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """The embeddings of ``images``."""
        x = self.dropout(self.patch_embed(images) + self.pos_embed)
        if self.training and self.mask_ratio > 0:
            seen = self._drawn_tokens(x)
            x = self.mask_token.to(x.dtype).expand_as(x).scatter(1, seen, self._encoded(x.gather(1, seen)))
        else:
            x = self._encoded(x)
        return self.feature(x.flatten(1))  # type: ignore[no-any-return]

    def _encoded(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = recomputed(block, x) if self.checkpoint_activations and self.training else block(x)
        return self.norm(x)  # type: ignore[no-any-return]

    def _drawn_tokens(self, x: Tensor) -> Tensor:
        """Which tokens of each image the blocks see, ``(n, seen, D)``, as ``gather`` wants it."""
        n, tokens, dim = x.shape
        order = torch.rand(n, tokens, device=x.device).argsort(dim=1)
        seen = order[:, : int(tokens * (1 - self.mask_ratio))]
        return seen[:, :, None].expand(-1, -1, dim)


class _Patches(nn.Module):
    """Images ``(n, 3, h, w)`` to one token a patch, ``(n, h // 9 * (w // 9), dim)``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, stride=PATCH)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class Block(nn.Module):
    """``(n, tokens, dim)`` to the same: attention and an MLP, each normalised first and added to what came."""

    def __init__(self, dim: int, norm: Callable[[int], nn.Module], *, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = norm(dim)
        self.norm2 = norm(dim)
        self.attn = _Attention(dim, dropout)
        self.mlp = _Mlp(dim, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` plus its attention, plus the MLP of that."""
        x = x + self.kept(self.attn(self.norm1(x)))
        return x + self.kept(self.mlp(self.norm2(x)))

    def kept(self, branch: Tensor) -> Tensor:
        """``branch`` of the images that keep it, enlarged so that its mean stays; 0 for the others."""
        ones = branch.new_ones(branch.shape[0], 1, 1)  # len() would fix the batch of an exported network
        return branch * functional.dropout(ones, self.drop_path, self.training)


class _Attention(nn.Module):
    """Attention of ``HEADS`` heads among all tokens; torch's own, which computes the softmax in float32."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            self.qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        )  # each (n, heads, tokens, dim / heads)
        heads = functional.scaled_dot_product_attention(q, k, v)
        return self.dropout(self.proj(heads.transpose(1, 2).flatten(2)))  # type: ignore[no-any-return]


class _Mlp(nn.Module):
    """Two linear maps over four times the dimensions, with ReLU6 between them."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.dropout(functional.relu6(self.fc1(x)))
        return self.dropout(self.fc2(inner))  # type: ignore[no-any-return]


def _check(dim: int, tokens: int, **shares: float) -> None:
    if tokens < 1:
        raise ValueError(f"a vit needs images of {PATCH} pixels or more, the size of a patch")
    if dim % HEADS:
        raise ValueError(f"a vit's {dim} dimensions cannot be shared by {HEADS} heads: give a width that makes them so")
    for name, share in shares.items():
        if not 0.0 <= share < 1.0:
            raise ValueError(f"{name} is a share in [0, 1), got {share}")
