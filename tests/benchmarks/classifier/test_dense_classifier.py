"""The dense model of the field against autograd's own cross-entropy, against more ranks, and against our classifier."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from simulation import on_ranks
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from benchmarks.classifier import chunked_classifier
from benchmarks.classifier.chunked_classifier import ChunkedClassifier
from benchmarks.classifier.contenders import _group_rows
from benchmarks.classifier.dense_classifier import CosFaceLogits, DenseClassifier
from benchmarks.classifier.measure import at_45_degrees
from partial_fc import CosFace, ShardedClassifier
from partial_fc.functional.p2sgrad import chance_cosine
from partial_fc.world import World

C, D, N = 37, 8, 12
SCALE, MARGIN = 16.0, 0.3


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, D, generator=generator), torch.randint(C, (N,), generator=generator)


def rows() -> Tensor:
    return torch.randn(C, D, generator=torch.Generator().manual_seed(2))


def head(world: World | None = None, **settings: Any) -> DenseClassifier:
    made = DenseClassifier(C, D, margin_loss=CosFaceLogits(SCALE, MARGIN), world=world, **settings)
    with torch.no_grad():
        made.weight.copy_(rows()[made.shard.start : made.shard.stop])
    return made


def step(made: torch.nn.Module, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and the gradients of embeddings and weights."""
    embeddings = embeddings.clone().requires_grad_()
    loss = made(embeddings, labels)
    loss.backward()
    (weight,) = made.parameters()
    assert embeddings.grad is not None
    assert weight.grad is not None
    return loss.detach(), embeddings.grad, weight.grad


def test_it_is_the_cross_entropy_of_margined_cosines() -> None:
    embeddings, labels = batch()
    x, w = embeddings.clone().requires_grad_(), rows().requires_grad_()
    logits = normalize(x) @ normalize(w).T - MARGIN * torch.nn.functional.one_hot(labels, C)
    expected = cross_entropy(SCALE * logits, labels)
    expected.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(step(head(), embeddings, labels), (expected.detach(), x.grad, w.grad))


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_together_are_one(size: int) -> None:
    embeddings, labels = batch()
    parts = list(zip(embeddings.chunk(size), labels.chunk(size), strict=True))
    results = on_ranks(size, lambda world: step(head(world), *parts[world.rank]))
    loss, grad_embeddings, grad_weight = step(head(), embeddings, labels)
    for result in results:
        torch.testing.assert_close(result[0], loss)
    torch.testing.assert_close(torch.cat([result[1] for result in results]), grad_embeddings)
    torch.testing.assert_close(torch.cat([result[2] for result in results]), grad_weight)


def test_it_does_the_same_work_as_our_classifier() -> None:
    ours = ShardedClassifier(C, D, CosFace(SCALE, MARGIN))
    with torch.no_grad():
        ours.weight.copy_(rows())
    torch.testing.assert_close(step(head(), *batch()), step(ours, *batch()))


def test_sampled_it_looks_at_some_rows_and_its_gradient_is_still_of_all() -> None:
    embeddings, labels = batch()
    _, _, grad_weight = step(head(sample_rate=0.5), embeddings, labels)
    assert grad_weight.shape == (C, D)
    touched = grad_weight.abs().sum(dim=1).nonzero().squeeze(1)
    assert len(touched) == C // 2
    assert set(labels.tolist()) <= set(touched.tolist())


def test_a_batch_of_more_classes_than_the_sample_keeps_them_all() -> None:
    embeddings, labels = batch()
    _, _, grad_weight = step(head(sample_rate=0.01), embeddings, labels)
    assert set(grad_weight.abs().sum(dim=1).nonzero().squeeze(1).tolist()) == set(labels.tolist())


def test_a_rank_that_samples_without_a_target_still_has_a_class() -> None:
    embeddings, _ = batch()
    labels = torch.zeros(N, dtype=torch.int64)
    parts = list(zip(embeddings.chunk(2), labels.chunk(2), strict=True))
    losses = on_ranks(2, lambda world: step(head(world, sample_rate=0.01), *parts[world.rank])[0])
    assert torch.isfinite(torch.stack(losses)).all()
    torch.testing.assert_close(losses[0], losses[1])


def test_the_margin_takes_labels_as_the_fields_heads_hand_them_over() -> None:
    cosines, columns = torch.zeros(3, 4), torch.tensor([2, -1, 0])
    expected = torch.zeros(3, 4)
    expected[0, 2] = expected[2, 0] = -SCALE * MARGIN
    for labels in (columns, columns[:, None]):
        torch.testing.assert_close(CosFaceLogits(SCALE, MARGIN)(cosines.clone(), labels), expected)


def test_bfloat16_products_change_little() -> None:
    plain, rough = head(), head(product_dtype=torch.bfloat16)
    torch.testing.assert_close(step(rough, *batch()), step(plain, *batch()), atol=0.02, rtol=0.05)


def test_more_ranks_than_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="num_classes=2: expected one for each of 3 ranks"):
        on_ranks(3, lambda world: DenseClassifier(2, D, world=world))


def test_torchs_own_in_chunks_is_the_softmax_over_scaled_cosines() -> None:
    made, (embeddings, labels) = ChunkedClassifier(C, D), batch()
    with torch.no_grad():
        made.weight.copy_(rows())
    x, w = embeddings.clone().requires_grad_(), rows().requires_grad_()
    expected = cross_entropy(chunked_classifier.SCALE * normalize(x) @ normalize(w).T, labels)
    expected.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(step(made, embeddings, labels), (expected.detach(), x.grad, w.grad))


@pytest.mark.parametrize("near_classes", [1, 4])
def test_grouped_rows_give_an_image_as_many_near_classes_as_asked(near_classes: int) -> None:
    num_classes, dim, batch_size = 600, 128, 40
    module = DenseClassifier(num_classes, dim)
    _group_rows(module, near_classes)
    labels = torch.arange(batch_size) * 7
    generator = torch.Generator().manual_seed(1)
    noise = normalize(torch.randn(batch_size, dim, generator=generator))
    cosines = at_45_degrees(noise, labels, module).detach() @ normalize(module.weight.detach()).T
    cosines.scatter_(1, labels[:, None], 0.0)
    beyond = (cosines > chance_cosine(num_classes, dim)).sum(dim=1).double().mean()
    assert beyond == pytest.approx(near_classes, rel=0.35)
