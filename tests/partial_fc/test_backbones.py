from __future__ import annotations

import hashlib
import inspect
import io
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from partial_fc.backbones import BACKBONES, backbone
from partial_fc.backbones.recompute import recomputed

# arcface_torch's state dicts at 512 dimensions and 112 pixels: the number of entries, a few of them for a failure that
# says something, and SHA-256 of all lines "key (shape)" in the order of the state dict.
ARCFACE_TORCH: dict[str, tuple[int, str, dict[str, tuple[int, ...]]]] = {
    "r18": (
        187,
        "2fc57a7c2208129d8fbf3e386e5883ee0b4b6f95183a0790ded8da8dfdaa1a02",
        {"layer1.1.conv2.weight": (64, 64, 3, 3), "layer4.1.bn3.running_var": (512,), "fc.weight": (512, 25088)},
    ),
    "r34": (
        331,
        "83030a7f8192c8f7aadf8e1335dee901e8d277f91181b4a26ee1f85468cd826f",
        {"layer2.3.prelu.weight": (128,), "layer3.0.downsample.0.weight": (256, 128, 1, 1)},
    ),
    "r50": (
        475,
        "07c891e9a2b72833518d206c487047ef65d0545ff1b8917ee10c407e149e5bb2",
        {"conv1.weight": (64, 3, 3, 3), "layer3.13.conv1.weight": (256, 256, 3, 3), "features.weight": (512,)},
    ),
    "r100": (
        925,
        "cb1161eeccd66b1d16aa7df5fbf70e3be51cb2d6c24a85c7f1758f03e0b69dee",
        {"layer2.12.bn1.weight": (128,), "layer3.29.conv2.weight": (256, 256, 3, 3), "fc.bias": (512,)},
    ),
    "r200": (
        1807,
        "4591f94b33e4962205cb393441bc6689778fe65b67316d37894dfe3f8bc3e79c",
        {"layer1.5.conv1.weight": (64, 64, 3, 3), "layer3.59.bn2.weight": (256,), "layer4.2.bn1.weight": (512,)},
    ),
    "mbf": (
        333,
        "9559fd021a31b1bc4f8906903cc7f219fb894ab5a6514ac22597689891dd31ab",
        {
            "layers.1.layers.0.weight": (128, 2, 3, 3),
            "layers.3.layers.3.layers.1.layers.0.weight": (128, 1, 3, 3),
            "layers.6.layers.2.layers.0.weight": (256, 512, 1, 1),
            "conv_sep.layers.2.weight": (512,),
            "features.layers.0.layers.0.weight": (512, 1, 7, 7),
            "features.layers.2.weight": (512, 512),
            "features.layers.3.num_batches_tracked": (),
        },
    ),
    "mbf_large": (
        606,
        "c5baa81a0265edd39676fe3c2b0716778b10ee01b7694c8141f7f2eb042834fd",
        {
            "layers.1.layers.1.layers.2.layers.0.weight": (256, 128, 1, 1),
            "layers.5.layers.11.layers.2.layers.0.weight": (512, 256, 1, 1),
            "features.layers.2.weight": (512, 512),
        },
    ),
    "vit_t": (
        150,
        "031539a3cb15052e6109eea6b6f80719d2832212892d9e8daa24021ffb491dee",
        {"pos_embed": (1, 144, 256), "patch_embed.proj.weight": (256, 3, 9, 9), "feature.0.weight": (256, 36864)},
    ),
    "vit_s": (
        150,
        "554d698bdadacb2f9416156486814dbe11d8bb20abb3e7ecdfcae498ee2c2ee9",
        {"blocks.11.attn.qkv.weight": (1536, 512), "feature.2.weight": (512, 512)},
    ),
    "vit_b": (
        282,
        "70714069fce547fef64958830903d50228bc88fc6cd9a210e90c16106ec8d5c2",
        {"mask_token": (1, 1, 512), "blocks.23.mlp.fc1.weight": (2048, 512)},
    ),
    "vit_l": (  # of the published widths and depths, as vit_h and r2060; their digests are this project's own
        282,
        "423af2d25f8393b19ea1f12f56ca7cfc7043cec653172a5bfe3719723bbff7ed",
        {"blocks.23.mlp.fc2.weight": (768, 3072)},
    ),
    "vit_h": (
        546,
        "753bccdd37eedac54ada03d806b834448d091cab57ee088775b13b2a0038d640",
        {"blocks.47.attn.proj.weight": (1024, 1024)},
    ),
    "r2060": (
        18583,
        "8415fc7159b0c119cab63d195f29229c173a3518e68d9bb80bfaf4c6b145332a",
        {"layer2.127.conv1.weight": (128, 128, 3, 3), "layer3.895.conv2.weight": (256, 256, 3, 3)},
    ),
}
# The first numbers of arcface_torch's two embeddings, and their lengths, in float64 for the weights and images of
# `filled` and `waves`.
EMBEDDINGS: dict[str, tuple[list[list[float]], list[float]]] = {
    "r18": (
        [
            [-0.13022077652474315, -0.09713584616858466, 0.06722175241843135],
            [-0.13021857068697834, -0.09713811452448388, 0.06722226440384577],
        ],
        [2.6473324492134593, 2.6473308521435537],
    ),
    "mbf": (
        [
            [0.3964314466971246, 1.2629175219054738, 1.1493999306823606],
            [0.39643663836648124, 1.2629166658734614, 1.1493938051370207],
        ],
        [19.851255389877107, 19.851202379778275],
    ),
    "mbf_large": (
        [
            [0.21197851450497912, 0.9978649406650976, 0.8993582317857097],
            [0.21197861641888532, 0.9978648021718506, 0.8993579764993032],
        ],
        [22.121963746878887, 22.12195977315502],
    ),
    "vit_t": (
        [
            [0.27995346944144534, 0.6668068320018118, 0.8999127506072555],
            [0.2788130556635679, 0.6662433148072987, 0.9000063070441984],
        ],
        [13.563213054339597, 13.57221754158277],
    ),
}
NETWORKS = ["r18", "mbf", "vit_t"]  # one of each construction


def narrow(name: str, *, input_size: int = 32, checkpoint_activations: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return backbone(
        name, embedding_dim=16, input_size=input_size, width=4, checkpoint_activations=checkpoint_activations
    )


def filled(network: nn.Module) -> nn.Module:
    """``network`` in float64 with weights from a formula: sines, of the size that keeps activations in range."""
    network = network.double().eval()
    for k, (key, value) in enumerate(network.state_dict().items()):
        sines = torch.sin(0.37 * torch.arange(value.numel(), dtype=torch.float64) + k).view(value.shape)
        if key.endswith("running_var"):
            value.copy_(1 + 0.5 * sines.abs())
        elif value.is_floating_point() and value.dim() <= 1:
            value.copy_(0.1 * sines + ("weight" in key))
        elif value.is_floating_point():
            value.copy_(sines * (2 / (value.numel() / len(value))) ** 0.5)
    return network


def waves() -> Tensor:
    return torch.sin(0.013 * torch.arange(2 * 3 * 112 * 112, dtype=torch.float64)).view(2, 3, 112, 112)


def images(n: int, size: int) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def gradients(network: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    network(batch).square().sum().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", BACKBONES)
def test_keys_shapes_and_order_are_arcface_torchs(name: str) -> None:
    entries, digest, some = ARCFACE_TORCH[name]
    with torch.device("meta"):
        state = backbone(name).state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert {key: shapes.get(key) for key in some} == some
    assert len(shapes) == entries
    lines = "\n".join(f"{key} {shape}" for key, shape in shapes.items())
    assert hashlib.sha256(lines.encode()).hexdigest() == digest


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_the_embeddings_are_arcface_torchs(name: str) -> None:
    first, lengths = EMBEDDINGS[name]
    with torch.no_grad():
        embeddings = filled(backbone(name))(waves())
    torch.testing.assert_close(embeddings[:, :3], torch.tensor(first, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.tensor(lengths, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("input_size", [32, 40, 112])
def test_a_narrow_network_trains_at_any_image_size(name: str, input_size: int) -> None:
    network = narrow(name, input_size=input_size)
    batch = images(4, input_size)
    assert network(batch).shape == (4, 16)
    trained = gradients(network, batch)
    assert set(trained) == {n for n, p in network.named_parameters() if p.requires_grad}
    assert all(g.isfinite().all() and g.any() for key, g in trained.items() if not key.endswith("fc.bias"))


@pytest.mark.parametrize(("name", "input_size"), [("r18", 40), ("mbf", 40), ("vit_t", 36)])
def test_every_pixel_has_a_say(name: str, input_size: int) -> None:
    batch = images(4, input_size).requires_grad_()
    narrow(name, input_size=input_size)(batch).square().sum().backward()
    assert batch.grad is not None
    assert (batch.grad.abs().sum((0, 1)) > 0).all()


def test_mobilefacenet_keeps_two_channels_per_group_at_any_width() -> None:
    with torch.device("meta"):
        state = backbone("mbf", width=6).state_dict()
    assert state["layers.1.layers.0.weight"].shape == (12, 2, 3, 3)
    assert state["features.layers.2.weight"].shape == (512, 48)


@pytest.mark.parametrize("name", NETWORKS)
def test_recomputed_activations_give_the_same_gradients(name: str) -> None:
    batch = images(8, 32)
    kept, recomputed = (gradients(narrow(name, checkpoint_activations=c).train(), batch) for c in (False, True))
    assert kept.keys() == recomputed.keys()
    for key, gradient in kept.items():
        assert torch.equal(gradient, recomputed[key]), key


@pytest.mark.parametrize(
    ("name", "counter"), [("mbf", "layers.0.layers.1.num_batches_tracked"), ("r18", "bn1.num_batches_tracked")]
)
def test_recomputed_activations_leave_the_same_statistics(name: str, counter: str) -> None:
    batch = images(8, 32)
    kept, recomputed = narrow(name), narrow(name, checkpoint_activations=True)
    for _ in range(2):
        gradients(kept, batch)
        gradients(recomputed, batch)
    theirs = recomputed.state_dict()
    for key, value in kept.state_dict().items():
        assert torch.equal(value, theirs[key]), key
    assert theirs[counter] == 2


def test_a_compiled_network_recomputes_to_the_same_gradients_and_statistics() -> None:
    def trained(compiled: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU())

        def step(x: Tensor) -> Tensor:
            return recomputed(block, x).square().sum()

        loss = torch.compile(step, backend="aot_eager")(images(2, 8)) if compiled else step(images(2, 8))
        loss.backward()  # type: ignore[no-untyped-call]
        grads = {f"{name}.grad": p.grad for name, p in block.named_parameters() if p.grad is not None}
        return {**block.state_dict(), **grads}

    eager, compiled = trained(False), trained(True)
    assert eager.keys() == compiled.keys()
    for key, value in eager.items():
        assert torch.allclose(compiled[key], value, rtol=1e-5, atol=1e-6), key
    assert compiled["1.num_batches_tracked"] == 1


def test_recomputation_keeps_fewer_activations() -> None:
    def kept_bytes(checkpoint_activations: bool) -> int:
        sizes: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        network = narrow("mbf", checkpoint_activations=checkpoint_activations)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            embeddings = network(images(16, 32))
        assert embeddings.requires_grad
        return sum(sizes.values())

    assert kept_bytes(True) < kept_bytes(False) / 4


@pytest.mark.parametrize("name", NETWORKS)
def test_dropout_acts_in_training_only(name: str) -> None:
    network = backbone(name, embedding_dim=8, input_size=32, width=4, dropout=0.5)
    batch = images(4, 32)
    assert not torch.equal(network(batch), network(batch))
    network.eval()
    assert torch.equal(network(batch), network(batch))


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_saved_as_arcface_torch_saves_them_load_strictly_and_give_the_same_embeddings(name: str) -> None:
    trained = narrow(name)
    gradients(trained, images(4, 32))  # running statistics unlike a new network's
    file = io.BytesIO()
    torch.save(OrderedDict(trained.state_dict()), file)
    file.seek(0)
    torch.manual_seed(7)
    loaded = backbone(name, embedding_dim=16, input_size=32, width=4)
    loaded.load_state_dict(torch.load(file, weights_only=True), strict=True)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images(2, 32)), trained.eval()(images(2, 32)))


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"'iresnet50'; the nearest is 'r50' of r18, r34, r50, r100, r200, mbf, mbf_large"
    ):
        backbone("iresnet50")


@pytest.mark.parametrize("what", ["embedding_dim", "input_size", "width"])
def test_sizes_below_one_are_refused(what: str) -> None:
    with pytest.raises(ValueError, match=f"{what} is a whole number, at least 1 .* got 0"):
        backbone("mbf", **{what: 0})  # type: ignore[arg-type]


def test_a_width_given_as_a_factor_is_refused() -> None:
    unchecked = inspect.unwrap(backbone)  # without the tests' own type checks
    with pytest.raises(ValueError, match=r"a width of 64 is the published one\), got 0.5"):
        unchecked("r18", width=0.5)


def test_a_dropout_of_everything_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dropout is a share in \[0, 1\), got 1.0"):
        backbone("r18", dropout=1.0)


def test_an_option_that_the_family_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="r18 has no mask_ratio: leave mask_ratio out"):
        backbone("r18", mask_ratio=0.1)
