"""Each part of a run, made from a configuration."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import get_args

import pytest
import tiny
import torch
from tiny import HELD_OUT, IMAGES_PER_IDENTITY, SIZE, TRAINED, Tree, tree, write_config, write_data
from torch import nn

from data_pipeline.checking.quarantine import QuarantineWriter
from data_pipeline.loader.image_loader import ImageLoader
from data_pipeline.source import Source
from launch import assembly
from launch.assembly.optimizer import OPTIMIZERS
from launch.assembly.run_folder import RunFolder
from launch.config.loading import ConfigError, load_config
from launch.config.run import Config, OptimizerConfig
from launch.config.stages import stages_of
from partial_fc import AdaCos, RowSGD, ShardedClassifier, World
from partial_fc.backbones import VisionTransformer

CPU = torch.device("cpu")


class Rank(World):
    """A rank that says where it is and never has to talk."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def config_of(data: Path, tmp_path: Path, /, **sections: Tree | str | int) -> Config:
    return load_config(write_config(tmp_path / "config.yaml", tree(data, tmp_path / "run", **sections)))


def head_of(config: Config, num_classes: int, world: World) -> ShardedClassifier:
    objective, dim = assembly.objective(config.objective, num_classes), config.backbone.embedding_dim
    return assembly.head(config.classifier, objective, num_classes, dim, world=world, seed=config.seed)


def rate_setter_of(
    config: Config, total_steps: int, num_images: int, optimizer: torch.optim.Optimizer, head: ShardedClassifier
) -> Callable[[int], tuple[float, float]]:
    per_epoch = num_images / config.schedule.batch_size
    return assembly.rate_setter(stages_of(config, total_steps), optimizer, head, steps_per_epoch=per_epoch)


def loader_of(config: Config, source: Source, world: World) -> ImageLoader:
    batch_size, seed = config.schedule.batch_size, config.seed
    return assembly.loader(config.data, source, batch_size=batch_size, seed=seed, world=world, device=CPU)


def test_a_set_is_named_by_its_file_or_by_its_folder(data: Path) -> None:
    by_folder, by_file = (assembly.open_held_out(path) for path in (data / "heldout", data / "heldout" / "train.rec"))
    assert len(by_folder) == len(by_file) == len(HELD_OUT) * IMAGES_PER_IDENTITY
    assert by_folder.name(0) == by_file.name(0)


def test_a_set_may_have_any_form(data: Path, tmp_path: Path) -> None:
    source = assembly.open_held_out(data / "heldout")
    for sample in range(len(source)):
        folder = tmp_path / f"person {source.label(sample):02}"
        folder.mkdir(exist_ok=True)
        (folder / f"{sample:03}.png").write_bytes(source.read(sample).tobytes())
    again = assembly.open_held_out(tmp_path)
    assert again.labels.tolist() == source.labels.tolist()
    assert all((again.read(sample) == source.read(sample)).all() for sample in range(len(source)))


@pytest.mark.parametrize(("join", "identities"), [("offset", 22), ("merge", 12)])
def test_several_sets_are_trained_on_as_one(data: Path, tmp_path: Path, join: str, identities: int) -> None:
    paths = [str(data / name) for name in ("train", "heldout")]
    source = tiny.training_data(config_of(data, tmp_path, data={"train": paths, "join": join}))
    assert (source.num_classes, len(source)) == (identities, 22 * IMAGES_PER_IDENTITY)
    with pytest.raises(ConfigError, match=r"data.num_classes is 5, but .*train \+ .*heldout has"):
        tiny.training_data(config_of(data, tmp_path, data={"train": paths, "join": join, "num_classes": 5}))


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"num_classes": 13}, r"data.num_classes is 13, but .* has 12"),
        ({"num_images": 95}, r"data.num_images is 95, but .* has 96"),
        ({"num_classes": 12, "num_images": 1}, r"data.num_images is 1, but .* has 96"),
    ],
)
def test_a_config_that_contradicts_its_data_is_refused(data: Path, tmp_path: Path, stated: Tree, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny.training_data(config_of(data, tmp_path, data=stated))


def test_a_config_that_agrees_with_its_data_is_taken(data: Path, tmp_path: Path) -> None:
    source = tiny.training_data(config_of(data, tmp_path, data={"num_classes": 12, "num_images": 96}))
    assert (source.num_classes, len(source)) == (len(TRAINED), 96)


def test_asked_for_label_noise_reaches_the_labels(data: Path, tmp_path: Path) -> None:
    clean = tiny.training_data(config_of(data, tmp_path))
    noisy = tiny.training_data(config_of(data, tmp_path, data={"label_noise": 0.5}))
    wrong = (clean.labels != noisy.labels).mean()
    assert 0.3 < wrong < 0.7


def test_a_backbone_has_the_sizes_and_the_weights_asked_for(data: Path, tmp_path: Path) -> None:
    config = config_of(data, tmp_path, backbone={"embedding_dim": 10})
    first = tiny.backbone(config)
    assert first(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, 10)
    filters = dict(first.named_parameters())["layer1.0.conv1.weight"]
    assert filters.is_contiguous(memory_format=torch.channels_last)
    torch.save(first.state_dict(), tmp_path / "weights.pt")
    again = tiny.backbone(config, tmp_path / "weights.pt")
    assert all(torch.equal(one, other) for one, other in zip(first.parameters(), again.parameters(), strict=True))
    with pytest.raises(ValueError, match="do not fit this backbone"):
        tiny.backbone(config_of(data, tmp_path, backbone={"embedding_dim": 11}), tmp_path / "weights.pt")


def test_a_head_holds_its_ranks_shard_of_the_configs_classifier(data: Path, tmp_path: Path) -> None:
    section = {"sample_rate": 0.5, "block_classes": 3, "learning_rate": 0.02, "momentum": 0.8}
    config = config_of(data, tmp_path, classifier=section, objective={"max_scale": 20.0}, seed=4)
    head = head_of(config, 12, Rank(1, 5))
    assert head.shard == range(3, 6)
    assert (head.embedding_dim, head.sample_rate, head.block_classes, head.seed) == (16, 0.5, 3, 4)
    assert isinstance(head.objective, AdaCos)
    assert (head.objective.num_classes, head.objective.max_scale) == (12, 20.0)
    assert isinstance(head.row_optimizer, RowSGD)
    assert (head.row_optimizer.learning_rate, head.row_optimizer.momentum) == (0.02, 0.8)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_every_trained_weight_is_optimised_once_and_only_matrices_and_filters_decay(
    data: Path, tmp_path: Path, name: str
) -> None:
    config = config_of(data, tmp_path, optimizer={"name": name, "weight_decay": 0.25, "momentum": 0.8})
    backbone = tiny.backbone(config)
    optimizer = assembly.optimizer(config.optimizer, backbone)
    decay = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    assert len(decay) == len(trained) == sum(len(group["params"]) for group in optimizer.param_groups)
    for name_of, parameter in trained.items():
        assert decay[parameter] == (0.25 if parameter.dim() > 1 else 0.0), name_of
    assert "features.weight" not in trained, "fixed to 1 by the network"
    assert {decay[trained[key]] for key in ("prelu.weight", "bn1.weight", "fc.bias")} == {0.0}
    group = optimizer.param_groups[0]
    assert group["betas"] == (0.8, 0.999) if name == "adamw" else (group["momentum"], group["nesterov"]) == (0.8, True)


def test_the_optimizers_are_those_that_a_config_may_name() -> None:
    assert set(OPTIMIZERS) == set(get_args(OptimizerConfig.model_fields["name"].annotation))
    assert {name.removeprefix("apex_") for name in OPTIMIZERS} == {"sgd", "adamw", "lamb"}


@pytest.mark.parametrize("name", ["apex_sgd", "apex_adamw", "apex_lamb"])
def test_apex_on_a_cpu_is_refused(data: Path, tmp_path: Path, name: str) -> None:
    config = config_of(data, tmp_path, optimizer={"name": name})
    with pytest.raises(ConfigError, match=f"{name}: apex's run on GPUs alone; on a CPU take sgd or adamw"):
        assembly.optimizer(config.optimizer, tiny.backbone(config))


def test_a_vit_has_the_published_rates_or_those_that_are_given(data: Path, tmp_path: Path) -> None:
    published = tiny.backbone(config_of(data, tmp_path, backbone={"name": "vit_t"}))
    given = tiny.backbone(config_of(data, tmp_path, backbone={"name": "vit_t", "drop_path": 0.05, "mask_ratio": 0}))
    for network, rates in ((published, (0.1, 0.1)), (given, (0.05, 0.0))):
        assert isinstance(network, VisionTransformer)
        assert (list(network.blocks)[-1].drop_path, network.mask_ratio) == pytest.approx(rates)


def test_one_factor_moves_the_learning_rates_of_backbone_and_rows(data: Path, tmp_path: Path) -> None:
    schedule = {"warmup_epochs": 1, "decay": "polynomial", "power": 1.0, "final": 0.5, "batch_size": 24}
    config = config_of(data, tmp_path, schedule=schedule, classifier={"learning_rate": 0.02})
    backbone, head = tiny.backbone(config), head_of(config, 12, World())
    optimizer = assembly.optimizer(config.optimizer, backbone)
    set_rates = rate_setter_of(config, 8, 96, optimizer, head)
    factors = [0.25, 0.5, 0.75, 1.0, 0.875, 0.75, 0.625, 0.5]  # an epoch of warm-up is 4 steps
    for step, factor in enumerate(factors):
        rates = set_rates(step)
        assert rates == pytest.approx((0.05 * factor, 0.02 * factor))
        assert [group["lr"] for group in optimizer.param_groups] == [rates[0]] * 2
        assert head.row_optimizer is not None
        assert head.row_optimizer.learning_rate == rates[1]


def test_a_warm_up_longer_than_the_run_leaves_one_step(data: Path, tmp_path: Path) -> None:
    config = config_of(data, tmp_path, schedule={"warmup_epochs": 50})
    backbone = tiny.backbone(config)
    optimizer = assembly.optimizer(config.optimizer, backbone)
    set_rates = rate_setter_of(config, 3, 96, optimizer, head_of(config, 12, World()))
    assert [set_rates(step)[0] for step in range(3)] == pytest.approx([0.025, 0.05, 0.0])


def test_ranks_share_out_a_global_batch_as_the_backbone_takes_it(data: Path, tmp_path: Path) -> None:
    config = config_of(data, tmp_path, schedule={"batch_size": 7})
    source = tiny.training_data(config)
    parts = [next(loader_of(config, source, Rank(rank, 2))) for rank in range(2)]
    whole = next(loader_of(config, source, World()))
    assert [len(part.labels) for part in parts] == [4, 3]
    assert sorted(torch.cat([part.labels for part in parts]).tolist()) == sorted(whole.labels.tolist())
    assert whole.images.shape == (7, 3, SIZE, SIZE)
    assert whole.images.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_too_small_for_its_ranks_is_a_mistake_of_the_config(data: Path, tmp_path: Path) -> None:
    config = config_of(data, tmp_path, schedule={"batch_size": 7})
    source = tiny.training_data(config)
    with pytest.raises(ConfigError, match=r"schedule.batch_size is 7: .* each of 4 ranks, 8 together"):
        loader_of(config, source, Rank(0, 4))


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's compiler warns of torch
def test_precision_and_compilation_follow_the_config(data: Path, tmp_path: Path) -> None:
    config = config_of(data, tmp_path)
    assert assembly.autocast(config.backbone, CPU) is nullcontext
    layer = nn.Linear(2, 2)
    assert assembly.compiled(layer, config.backbone.compile) is layer
    assert assembly.replicated(layer, World()) is layer
    other = config_of(data, tmp_path, backbone={"autocast": "bfloat16", "compile": True})
    with assembly.autocast(other.backbone, CPU)():
        assert layer(torch.zeros(1, 2)).dtype == torch.bfloat16
    assert isinstance(assembly.compiled(layer, other.backbone.compile), torch._dynamo.OptimizedModule)


def test_an_earlier_run_in_the_folder_is_set_aside_whole(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert RunFolder(run_dir).set_aside() is None
    run_dir.mkdir()
    assert RunFolder(run_dir).set_aside() is None  # an empty folder is no run
    for text in ("first", "second"):
        (run_dir / "checkpoints").mkdir(parents=True)
        (run_dir / "metrics.jsonl").write_text(text)
        aside = RunFolder(run_dir).set_aside()
        assert aside is not None
        assert not run_dir.exists()
        assert (aside / "metrics.jsonl").read_text() == text
    assert {path.name for path in tmp_path.iterdir()} == {"run-1", "run-2"}


def test_a_batch_of_several_images_of_each_identity(data: Path, tmp_path: Path) -> None:
    config = config_of(data, tmp_path, schedule={"batch_size": 12}, data={"images_per_identity_in_batch": 4})
    batch = next(loader_of(config, tiny.training_data(config), World()))
    assert sorted(torch.bincount(batch.labels).tolist(), reverse=True)[:3] == [4, 4, 4]


def test_batches_that_cannot_hold_so_many_of_each_are_a_mistake_of_the_config(data: Path, tmp_path: Path) -> None:
    config = config_of(data, tmp_path, schedule={"batch_size": 10}, data={"images_per_identity_in_batch": 4})
    with pytest.raises(ConfigError, match=r"data\.images_per_identity_in_batch: .*expected a multiple"):
        loader_of(config, tiny.training_data(config), World())


def test_identities_with_few_images_are_left_out_and_a_quarantine_list_still_fits(data: Path, tmp_path: Path) -> None:
    whole = tiny.training_data(config_of(data, tmp_path))
    with QuarantineWriter(tmp_path / "quarantine.tsv", whole) as listed:
        listed.append(3, "truncated")
    sections = {"least_images_per_identity": IMAGES_PER_IDENTITY, "quarantine": str(tmp_path / "quarantine.tsv")}
    config = config_of(data, tmp_path, data=sections)
    source = tiny.training_data(config)
    assert source.num_classes == whole.num_classes
    assert assembly.quarantined(config.data, source).tolist() == [3]
    with pytest.raises(ValueError, match="no identity has 9 images"):
        tiny.training_data(config_of(data, tmp_path, data={"least_images_per_identity": 9}))
