"""What DALI decodes: encoded batches, asked for by their numbers, in the thread that takes the decoded ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data_pipeline.augment.draws import Parameters
from data_pipeline.images.headers import ImageHeader
from data_pipeline.loader.dali_graph import CPU, ImageFormat, graph_parameters, pipeline, tensors

BATCHES_AHEAD = 2  # decoded while the model works on another


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """Which images make a batch, (n,), and how each is changed: arrays (n, ...), under the same names in a pipeline."""

    samples: NDArray[np.int64]
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class EncodedBatch:
    """What DALI is given for a batch: the bytes of its images, and what their headers say."""

    plan: BatchPlan
    images: list[NDArray[np.uint8]]
    headers: list[ImageHeader]
    replaced: int = 0
    """How many of the images stand for one that was found bad."""


class Feed(Protocol):
    """Encoded batches by their numbers."""

    def encoded(self, step: int) -> EncodedBatch | None:
        """The batch of a step, or None behind the last one; called up to `BATCHES_AHEAD` steps early."""

    def mark_bad(self, step: int, problems: dict[int, str]) -> None:
        """Takes note of the samples of a step that DALI cannot decode, each with the reason.

        Unless it raises, `encoded(step)` is called again.
        """


class InFlight:
    """The batches of a feed, from `first` on, that one pipeline was given and that were not handed out yet."""

    def __init__(self, feed: Feed, form: ImageFormat, first: int) -> None:
        self.form, self.first = form, first
        self._feed, self._batches = feed, dict[int, EncodedBatch]()

    def batch(self, step: int) -> EncodedBatch | None:
        """The batch of a step, which the feed is asked for once; None behind the last one."""
        if step not in self._batches:
            encoded = self._feed.encoded(step)
            if encoded is None:
                return None
            self._batches[step] = encoded
        return self._batches[step]

    def given(self, step: int) -> EncodedBatch | None:
        """The batch of a step if the pipeline asked for it."""
        return self._batches.get(step)

    def handed_out(self, step: int) -> EncodedBatch:
        """The batch of a step, which is forgotten."""
        return self._batches.pop(step)

    def __call__(self, batch: Any) -> list[Any]:
        """The next inputs of the graph; DALI calls this with the number of the iteration."""
        encoded = self.batch(self.first + batch.iteration)
        if encoded is None:
            raise StopIteration
        is_other_size = self.form.is_other_size(encoded.headers)
        return [tensors(encoded.images), is_other_size, *graph_parameters(encoded.plan.parameters, self.form).values()]


def started_pipeline(in_flight: InFlight, num_threads: int) -> Any:
    """A DALI pipeline that decodes the batches in flight; none of them is larger than the first."""
    form, first = in_flight.form, in_flight.batch(in_flight.first)
    assert first is not None
    return pipeline(
        in_flight,
        form,
        graph_parameters(first.plan.parameters, form),
        batch_size=len(first.plan.samples),
        num_threads=num_threads,
        device_id=None if form.device == CPU else form.device,
        prefetch_queue_depth=BATCHES_AHEAD,
        exec_dynamic=True,
    )
