"""The costs of tensor code against known ones, and a network counted on fake images against one that really runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from partial_fc.backbones import backbone
from partial_fc.planning.backbone_cost import BackboneCost
from partial_fc.planning.collectives import backbone_collectives
from partial_fc.planning.tensor_costs import TensorCosts


def test_the_peak_is_the_most_that_lives_at_once() -> None:
    with TensorCosts() as costs:
        first = torch.zeros(1000)
        view = first.view(10, 100)[2:]
        del first
        second = torch.zeros(500)
        del view
        third = torch.zeros(300)
    assert costs.peak_bytes == 4 * 1500
    assert costs.live_bytes == 4 * 800
    del second, third
    assert costs.live_bytes == 0


def test_what_was_there_before_is_not_counted() -> None:
    before = torch.zeros(1000)
    with TensorCosts() as costs:
        before.add_(1.0)
        view = before.view(10, 100)
    assert (costs.live_bytes, costs.peak_bytes, len(view)) == (0, 0, 10)


def test_products_are_counted_as_operations_and_the_rest_as_traffic() -> None:
    left, right, total, places = torch.ones(4, 8), torch.ones(8, 16), torch.zeros(100, 16), torch.arange(4)
    with TensorCosts() as costs:
        product = left @ right
        assert costs.operations == 2 * 4 * 8 * 16
        assert costs.traffic_bytes == 0
        product += 1
        assert costs.traffic_bytes == 2 * product.nbytes
        total.index_copy_(0, places, product)
    assert costs.traffic_bytes == 4 * product.nbytes


def test_a_chain_that_runs_as_one_kernel_reads_and_writes_once() -> None:
    with TensorCosts() as costs:
        matrix = torch.ones(100, 10)
        costs.traffic_bytes = 0
        result = costs.one_kernel(lambda given: given.mul(2.0).exp() + 1.0)(matrix)
    assert costs.traffic_bytes == matrix.nbytes + result.nbytes
    assert costs.peak_bytes == costs.live_bytes == matrix.nbytes + result.nbytes


NETWORKS = {
    "r18": partial(backbone, "r18", width=8, input_size=32, embedding_dim=16),
    "r18 again": partial(backbone, "r18", width=8, input_size=32, embedding_dim=16, checkpoint_activations=True),
    "mbf": partial(backbone, "mbf", width=8, input_size=32, embedding_dim=16),
}


@pytest.mark.parametrize(("name", "autocast"), [("r18", None), ("r18 again", torch.bfloat16), ("mbf", torch.bfloat16)])
def test_a_network_on_fake_images_costs_what_it_costs_on_real_ones(name: str, autocast: torch.dtype | None) -> None:
    cost, made, images = BackboneCost(NETWORKS[name], 32, autocast), NETWORKS[name](), 24
    for parameter in made.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with TensorCosts() as costs:
        batch = torch.randn(images, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            embeddings = made(batch)
        embeddings.float().sum().backward()
    assert cost.parameters == sum(p.numel() for p in made.parameters() if p.requires_grad)
    assert cost.activations_bytes(images) == pytest.approx(costs.peak_bytes, rel=0.03)
    assert cost.operations(images) == pytest.approx(costs.operations, rel=0.01)
    assert cost.traffic_bytes(images) == pytest.approx(costs.traffic_bytes, rel=0.05)


def test_checkpointing_saves_memory_and_costs_operations() -> None:
    kept, again = (BackboneCost(NETWORKS[name], 32, None) for name in ("r18", "r18 again"))
    assert again.activations_bytes(1024) < 0.75 * kept.activations_bytes(1024)
    assert 1.2 * kept.operations(64) < again.operations(64) < 1.4 * kept.operations(64)


def test_the_buckets_of_ddp_are_those_that_it_makes() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        network = backbone("r18", width=32, input_size=32, embedding_dim=64)
        replica = DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)
        bucket_bytes: list[int] = []
        replica.register_comm_hook(None, _listening(bucket_bytes))
        for _ in range(2):  # the first step finds the order of the gradients
            bucket_bytes.clear()
            replica(torch.randn(2, 3, 32, 32)).sum().backward()
    finally:
        dist.destroy_process_group()
    (planned,) = backbone_collectives(sum(p.numel() for p in network.parameters() if p.requires_grad))
    assert planned.total_bytes == sum(bucket_bytes)
    assert abs(planned.count - len(bucket_bytes)) <= 1


def _listening(bucket_bytes: list[int]) -> Callable[..., torch.futures.Future[torch.Tensor]]:
    def hook(state: None, bucket: Any) -> torch.futures.Future[torch.Tensor]:
        bucket_bytes.append(bucket.buffer().nbytes)
        future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    # DDP looks at the types themselves, which here are text.
    bucket_type = dist.GradBucket  # type: ignore[attr-defined]
    hook.__annotations__ = {"bucket": bucket_type, "return": torch.futures.Future[torch.Tensor]}
    return hook


def test_a_single_image_is_counted_as_two_which_batchnorm_needs() -> None:
    cost = BackboneCost(lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 2), nn.BatchNorm1d(2)), 2, None)
    assert cost.parameters == 26 + 4
    assert cost.activations_bytes(1) == cost.activations_bytes(2) > 0
