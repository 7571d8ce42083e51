"""What the vision transformer has and the other backbones have not: tokens, masks, stochastic depth."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from partial_fc.backbones import VisionTransformer, backbone
from partial_fc.backbones.vision_transformer import HEADS, Block

SIZE = 32  # 3 x 3 patches
TOKENS = 9
DEPTH = 3


def small(*, drop_path: float = 0.1, mask_ratio: float = 0.1, dropout: float = 0.0) -> VisionTransformer:
    return VisionTransformer(
        4,
        DEPTH,
        width=4,
        embedding_dim=8,
        input_size=SIZE,
        drop_path=drop_path,
        mask_ratio=mask_ratio,
        dropout=dropout,
    )


def images(n: int = 4) -> Tensor:
    return torch.randn(n, 3, SIZE, SIZE)


def drop_paths(network: VisionTransformer) -> list[float]:
    return [block.drop_path for block in network.blocks if isinstance(block, Block)]


def plain_blocks(network: VisionTransformer, x: Tensor) -> Tensor:
    """The blocks and the last norm, head by head, from the state dict alone."""
    state = network.state_dict()
    dim = x.shape[-1]

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (dim,), state[f"{name}.weight"], state[f"{name}.bias"])

    for i in range(len(network.blocks)):
        block = f"blocks.{i}"
        q, k, v = (norm(x, f"{block}.norm1") @ state[f"{block}.attn.qkv.weight"].T).split(dim, dim=-1)
        heads = []
        for part in torch.arange(dim).chunk(HEADS):
            scores = q[..., part] @ k[..., part].transpose(1, 2) / len(part) ** 0.5
            heads.append(scores.softmax(-1) @ v[..., part])
        x = x + torch.cat(heads, -1) @ state[f"{block}.attn.proj.weight"].T + state[f"{block}.attn.proj.bias"]
        inner = norm(x, f"{block}.norm2") @ state[f"{block}.mlp.fc1.weight"].T + state[f"{block}.mlp.fc1.bias"]
        x = x + inner.clamp(0, 6) @ state[f"{block}.mlp.fc2.weight"].T + state[f"{block}.mlp.fc2.bias"]
    return norm(x, "norm")


@pytest.mark.parametrize("masked", [False, True])
def test_the_embeddings_are_those_of_a_plain_twin(masked: bool) -> None:
    network = small(drop_path=0.0, mask_ratio=0.4 if masked else 0.0).double()
    batch = images().double()
    torch.manual_seed(3)
    given = network(batch)

    tokens = network.patch_embed(batch) + network.pos_embed
    torch.manual_seed(3)
    seen = int(TOKENS * 0.6) if masked else TOKENS
    wanted = network.mask_token.expand_as(tokens).clone()
    for image, order in enumerate(torch.rand(len(batch), TOKENS).argsort(1)):
        kept = order[:seen].sort().values
        wanted[image, kept] = plain_blocks(network, tokens[image : image + 1, kept])[0]
    torch.testing.assert_close(given, network.feature(wanted.flatten(1)))


def test_a_branch_is_left_out_at_its_rate_and_keeps_its_mean() -> None:
    network = small(drop_path=0.5)
    assert drop_paths(network) == pytest.approx([0.0, 0.25, 0.5])
    last = network.blocks[-1]
    assert isinstance(last, Block)
    kept = last.kept(torch.ones(4000, 2, 3))
    assert set(kept.flatten().tolist()) == {0.0, 2.0}
    assert (kept == kept[:, :1, :1]).all(), "an image keeps its branch whole, or loses it"
    assert kept.mean().item() == pytest.approx(1, abs=0.1)


def test_nothing_is_drawn_in_evaluation() -> None:
    network = small(drop_path=0.5, mask_ratio=0.5, dropout=0.5).eval()
    batch = images()
    assert torch.equal(network(batch), network(batch))


def test_the_mask_token_is_trained_only_where_there_are_masks() -> None:
    assert small(mask_ratio=0.1).mask_token.requires_grad
    unmasked = small(mask_ratio=0.0)
    assert not unmasked.mask_token.requires_grad
    unmasked(images()).sum().backward()
    assert all(p.grad is not None for p in unmasked.parameters() if p.requires_grad), "DDP waits for every gradient"


@pytest.mark.parametrize(
    ("name", "drop_path", "mask_ratio"),
    [
        ("vit_t", 0.1, 0.1),
        ("vit_s", 0.1, 0.1),
        ("vit_b", 0.1, 0.1),
        ("vit_l", 0.05, 0.05),
        ("vit_h", 0.1, 0.0),
    ],
)
def test_the_published_rates(name: str, drop_path: float, mask_ratio: float) -> None:
    with torch.device("meta"):
        network = backbone(name)
    assert isinstance(network, VisionTransformer)
    assert drop_paths(network)[-1] == pytest.approx(drop_path)
    assert network.mask_ratio == mask_ratio


def test_half_precision_of_autocast_stays_near_float32() -> None:
    network = small().eval()
    batch = images()
    wanted = network(batch)
    with torch.autocast("cpu", torch.bfloat16):
        given = network(batch)
    assert torch.cosine_similarity(given.float(), wanted).min() > 0.999


def test_masks_are_drawn_under_autocast_too() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert small()(images()).shape == (4, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 8}, "images of 9 pixels or more"),
        ({"width": 5}, "20 dimensions cannot be shared by 8 heads"),
        ({"drop_path": 1.0}, r"drop_path is a share in \[0, 1\), got 1.0"),
        ({"mask_ratio": -0.1}, r"mask_ratio is a share in \[0, 1\), got -0.1"),
    ],
)
def test_what_no_vit_can_have_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        backbone("vit_t", **options)  # type: ignore[arg-type]
