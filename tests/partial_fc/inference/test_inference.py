"""A network loaded from any of its files gives what it gives itself, and says how it is fed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

import partial_fc
from partial_fc.backbones import backbone
from partial_fc.inference.exporting import Form, export, quantise
from partial_fc.inference.facts import PIXELS, UNIT, Facts
from partial_fc.inference.model import Forward, Numbers, _of_program, _providers, load, of_module, unit
from partial_fc.inference.pictures import Pixels, pixels_of
from partial_fc.inference.trained import trained_network

DIM, SIDE, WIDTH = 32, 32, 8
NAMES = {"r18": WIDTH, "mbf": 64, "vit_t": 64}
FACTS = {name: Facts(name, width, DIM, SIDE, licence="CC0", made_by="a test") for name, width in NAMES.items()}


def made(name: str) -> nn.Module:
    """A network whose BatchNorms have statistics, so that folding them is no identity."""
    torch.manual_seed(3)
    network = backbone(name, embedding_dim=DIM, input_size=SIDE, width=NAMES[name]).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    with torch.no_grad():
        for _ in range(3):
            network(torch.from_numpy(pixels(64).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1))
    network.eval()
    assert distance(*expected(network, pixels(2))[:, None]) > 0.05, "pictures are told apart"
    return network


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[nn.Module, Path, Facts]]:
    """Networks and their files, each written once."""
    folder, kept = tmp_path_factory.mktemp("exported"), dict[Any, tuple[nn.Module, Path, Facts]]()

    def one(name: str, form: Form, **changes: str) -> tuple[nn.Module, Path, Facts]:
        key = (name, form, *changes.items())
        if key not in kept:
            network, facts = made(name), replace(FACTS[name], **changes)  # type: ignore[arg-type]
            path = folder / f"{len(kept)}.{form}"
            export(network, facts, form, path)
            kept[key] = network, path, facts
        return kept[key]

    return one


def pixels(count: int) -> Pixels:
    return np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def expected(network: nn.Module, given: Pixels) -> Numbers:
    """The slow road: float64, one picture at a time."""
    rows = []
    for picture in given:
        image = torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float64) / 127.5 - 1)
        with torch.no_grad():
            rows.append(network.double()(image[None])[0].numpy())
    network.float()
    return unit(np.array(rows, np.float32))


def distance(found: Numbers, wanted: Numbers) -> float:
    return float((1 - (found.astype(np.float64) * wanted).sum(1)).max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["onnx", "pt2", "safetensors"])
def test_every_file_takes_any_number_of_images_and_gives_what_the_network_gives(
    exported: Callable[..., tuple[nn.Module, Path, Facts]], name: str, form: Form
) -> None:
    network, path, facts = exported(name, form)
    model = load(path)
    assert model.facts == facts
    for count in (1, 3, 8):
        found = model.embed_pixels(pixels(count))
        assert found.dtype == np.float32
        assert found.shape == (count, DIM)
        assert distance(found, expected(network, pixels(count))) < 1e-6


def test_a_program_goes_to_another_device_than_it_was_traced_on(
    exported: Callable[..., tuple[nn.Module, Path, Facts]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights, and the device that its own assertions name: "meta" stands for a GPU here."""
    run = list[Any]()

    def kept(module: Any, device: torch.device) -> Forward:
        run.append(module)
        return of_module(module, device)

    monkeypatch.setattr("partial_fc.inference.model.of_module", kept)
    _of_program(exported("vit_t", "pt2")[1], torch.device("meta"))
    (module,) = run
    assert {each.device.type for each in module.state_dict().values()} == {"meta"}
    asserted = [node for node in module.graph.nodes if node.target == torch.ops.aten._assert_tensor_metadata.default]
    assert {str(node.kwargs["device"]) for node in asserted} == {"meta"}


def test_onnx_runs_on_a_gpu_where_it_can_and_never_by_tensorrt() -> None:
    every = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"]
    assert _providers(every) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert _providers(onnxruntime.get_available_providers())[-1] == "CPUExecutionProvider"


def test_onnx_names_its_batch_and_has_a_batch_norm_only_before_padded_convolutions(
    exported: Callable[..., tuple[nn.Module, Path, Facts]],
) -> None:
    network, path, _ = exported("r18", "onnx")
    graph = onnx.load(path).graph
    (given,) = graph.input
    dims = given.type.tensor_type.shape.dim
    assert (given.name, graph.output[0].name) == ("images", "embeddings")
    assert [dims[0].dim_param, *(dim.dim_value for dim in dims[1:])] == ["batch", 3, SIDE, SIDE]
    in_blocks = sum(name.startswith("layer") and name.endswith("bn1") for name, _ in network.named_modules())
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["BatchNormalization"] == in_blocks + 1, "and the one before the flattened embedding"
    assert Counter(node.op_type for node in onnx.load(exported("mbf", "onnx")[1]).graph.node)["BatchNormalization"] == 0


def test_a_file_can_take_raw_pixels_and_give_unit_rows(
    exported: Callable[..., tuple[nn.Module, Path, Facts]],
) -> None:
    network, path, _ = exported("r18", "onnx", input=PIXELS, output=UNIT)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    raw = pixels(5).transpose(0, 3, 1, 2).astype(np.float32)
    (found,) = session.run(None, {"images": raw})
    assert distance(found, expected(network, pixels(5))) < 1e-6
    assert load(path).embed_pixels(pixels(5)) == pytest.approx(found, abs=1e-6)


def test_half_precision_and_eight_bits_are_near_and_smaller(
    exported: Callable[..., tuple[nn.Module, Path, Facts]], tmp_path: Path
) -> None:
    network, wide, facts = exported("r18", "onnx")
    _, half, _ = exported("r18", "onnx", precision="float16")
    small = tmp_path / "int8.onnx"
    images = [pixels(16).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1 for _ in range(2)]
    quantise(wide, facts, images, small)
    wanted = expected(network, pixels(8))
    assert distance(load(half).embed_pixels(pixels(8)), wanted) < 1e-3
    assert 1e-7 < distance(load(small).embed_pixels(pixels(8)), wanted) < 0.1
    assert load(small).facts == replace(facts, precision="int8")
    sizes = [path.stat().st_size for path in (wide, half, small)]
    assert sizes[0] > 1.7 * sizes[1]
    assert sizes[1] > sizes[2]
    parameters = {weight.dtype for weight in network.parameters()}
    assert parameters == {torch.float32}, "the network itself stays as it was"


def test_a_plain_state_dict_loads_strictly_and_by_its_shapes(tmp_path: Path) -> None:
    network = made("r18")
    export(network, FACTS["r18"], "torch", tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    backbone("r18", embedding_dim=DIM, input_size=SIDE, width=WIDTH).load_state_dict(state)
    assert distance(load(tmp_path / "model.pt").embed_pixels(pixels(2)), expected(network, pixels(2))) < 1e-6
    assert load(tmp_path / "model.pt", input_size=28).facts.input_size == 28, "which has the same shapes"
    for change in ({"input": PIXELS}, {"output": UNIT}, {"precision": "float16"}):
        with pytest.raises(ValueError, match="torch holds float32 weights alone"):
            export(network, replace(FACTS["r18"], **change), "torch", tmp_path / "other.pt")  # type: ignore[arg-type]
    assert not (tmp_path / "other.pt").exists()


def test_pictures_are_set_upright_resized_and_mirrored(tmp_path: Path) -> None:
    network = made("mbf")
    export(network, FACTS["mbf"], "safetensors", tmp_path / "m.safetensors")
    model = partial_fc.load(tmp_path / "m.safetensors")
    picture = np.minimum(pixels(1)[0], np.linspace(0, 255, SIDE, dtype=np.uint8)[None, :, None])  # bright to the right
    Image.fromarray(picture).save(tmp_path / "a.png")
    turned = Image.fromarray(np.rot90(picture))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.new("L", (3 * SIDE, 2 * SIDE), 77).save(tmp_path / "large.png")
    paths = [tmp_path / name for name in ("a.png", "turned.png", "large.png")]
    taken = np.stack([picture, picture, np.full_like(picture, 77)])
    assert np.array_equal(pixels_of(paths, SIDE), taken)
    assert distance(model.embed(paths, batch=2), expected(network, taken)) < 1e-5
    both = expected(network, picture[None]), expected(network, picture[None, :, ::-1])
    raw = [model.forward(np.ascontiguousarray(each)) for each in _normalised(picture)]
    assert distance(model.embed(paths[:1], flip=True), unit(raw[0] + raw[1])) < 1e-6
    assert distance(both[0], both[1]) > 0.01
    assert model.embed([]).shape == (0, DIM)


def _normalised(picture: Pixels) -> list[Numbers]:
    image = picture.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1
    return [image, image[..., ::-1]]


def test_what_cannot_be_embedded_or_loaded_is_named(
    tmp_path: Path, exported: Callable[..., tuple[nn.Module, Path, Facts]]
) -> None:
    model = load(exported("mbf", "safetensors")[1])
    (tmp_path / "text.jpg").write_text("no picture")
    for name, reason in (("gone.jpg", "there is no such file"), ("text.jpg", "it is no picture")):
        with pytest.raises(ValueError, match=f"{name} cannot be embedded: {reason}"):
            model.embed([tmp_path / name])
    with pytest.raises(ValueError, match="expected a list of paths, got one"):
        model.embed(str(tmp_path / "a.jpg"))
    with pytest.raises(ValueError, match=r"expected uint8 pixels \(n, 32, 32, 3\), got uint8 \(1, 3, 32, 32\)"):
        model.embed_pixels(np.zeros((1, 3, SIDE, SIDE), np.uint8))
    for name in ("a.onnx", "a.pt2"):
        with pytest.raises(ValueError, match=name):
            load(tmp_path / name)
        (tmp_path / name).write_bytes(b"something else")
        with pytest.raises(ValueError, match=f"{name} is no"):
            load(tmp_path / name)
    with pytest.raises(ValueError, match="there is no such file or folder"):
        load(tmp_path / "gone")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "strange.pt")
    with pytest.raises(ValueError, match="the weights of no network here"):
        load(tmp_path / "strange.pt")
    foreign = onnx.load(exported("mbf", "onnx")[1])
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match=r"foreign.onnx does not say what it takes and gives"):
        load(tmp_path / "foreign.onnx")


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("RGB", (15, 10)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb.png cannot be embedded: it is no picture \(Image size"):
        pixels_of([tmp_path / "bomb.png"], SIDE)


@pytest.mark.processes
def test_a_wheel_without_dali_and_onnx_loads_and_embeds(tmp_path: Path) -> None:
    export(made("r18"), FACTS["r18"], "safetensors", tmp_path / "m.safetensors")
    Image.fromarray(pixels(1)[0]).save(tmp_path / "a.png")
    code = (
        "import sys\n"
        "for name in ('nvidia.dali', 'onnx', 'onnxruntime', 'onnxscript', 'launch', 'data_pipeline'):\n"
        "    sys.modules[name] = None\n"
        "import partial_fc\n"
        "print(partial_fc.load('m.safetensors').embed(['a.png']).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (f"(1, {DIM})\n", 0), done.stderr


def test_the_weights_of_a_file_are_the_networks() -> None:
    with pytest.raises(ValueError, match="is missing or no number"):
        Facts.of_texts({"network": "r18", "width": "8"})
    assert Facts.of_texts(FACTS["r18"].texts()) == FACTS["r18"]


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    export(made("r18"), replace(FACTS["r18"], input_size=64), "safetensors", tmp_path / "wrong.safetensors")
    with pytest.raises(ValueError, match="do not fit"):
        trained_network(tmp_path / "wrong.safetensors")
