"""The ranks of a run and the few collectives that training needs: the one home of ``torch.distributed``.

``World()`` is one process, and every collective is then the identity: the code above knows no second path.
Every reduction is a SUM. Dividing by a number of ranks happens nowhere: the loss is the mean over the global batch,
so the sum of the ranks' gradients is already its gradient (see :func:`sum_gradients`).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # first imported with a group there, it would hold the group to Python's end
from torch import Tensor

from partial_fc.reports.traffic import Traffic

# The names of torch 2.13, and those of earlier versions.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class World:
    """One process: rank 0 of 1. The subclasses talk; the meaning of each method is theirs too.

    What is said is counted in ``traffic``, where one is set.
    """

    rank: int = 0
    size: int = 1
    traffic: Traffic | None = None

    def all_sum(self, tensor: Tensor) -> Tensor:
        """The sum of every rank's ``tensor``, the same on every rank. One all-reduce of its size."""
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        """``(size, *shape)``: every rank's ``tensor``, of one shape on all of them. One all-gather."""
        return tensor.unsqueeze(0)

    def gather_rows(self, rows_n: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """``(N, ...)``: the ranks' rows in rank order; ``counts`` says how many each has.

        One all-gather of ``size * max(counts)`` rows, and one of a number where ``counts`` is not given.
        """
        return rows_n

    def scatter_sum_rows(self, rows_N: Tensor, counts: Sequence[int]) -> Tensor:
        """``(n, ...)``: this rank's part of the sum of every rank's ``rows_N``: the adjoint of :meth:`gather_rows`.

        One reduce-scatter of ``size * max(counts)`` rows.
        """
        return rows_N

    def start_scatter_sum_rows(self, rows_N: Tensor, counts: Sequence[int]) -> Callable[[], Tensor]:
        """:meth:`scatter_sum_rows`, begun now and waited for when the result is asked for."""
        summed_n = self.scatter_sum_rows(rows_N, counts)
        return lambda: summed_n

    def barrier(self) -> None:
        """Return once every rank has come here."""


class ProcessGroupWorld(World):
    """The ranks of a ``torch.distributed`` process group; ``None`` means the default one."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)

    def all_sum(self, tensor: Tensor) -> Tensor:
        """See :meth:`World.all_sum`; ``tensor`` itself is left as it was."""
        total = tensor.clone()
        with self.waiting(total):
            dist.all_reduce(total, group=self.group)
        return total

    def all_gather(self, tensor: Tensor) -> Tensor:
        """See :meth:`World.all_gather`."""
        gathered = tensor.new_empty(self.size * tensor.numel())
        with self.waiting(gathered):
            _all_gather(gathered, tensor.reshape(-1).contiguous(), group=self.group)
        return gathered.view(self.size, *tensor.shape)

    def gather_rows(self, rows_n: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """See :meth:`World.gather_rows`; uneven ranks are padded to the longest on the way."""
        if counts is None:
            counts = self.all_gather(torch.tensor(len(rows_n), device=rows_n.device)).tolist()
        longest = max(counts)
        padded = rows_n.new_zeros((longest, *rows_n.shape[1:]))
        padded[: len(rows_n)] = rows_n
        gathered = rows_n.new_empty((self.size * longest, *rows_n.shape[1:]))
        with self.waiting(gathered):
            _all_gather(gathered, padded, group=self.group)
        if min(counts) == longest:
            return gathered
        return torch.cat([part[:count] for part, count in zip(torch.split(gathered, longest), counts, strict=True)])

    def scatter_sum_rows(self, rows_N: Tensor, counts: Sequence[int]) -> Tensor:
        """See :meth:`World.scatter_sum_rows`."""
        return self.start_scatter_sum_rows(rows_N, counts)()

    def start_scatter_sum_rows(self, rows_N: Tensor, counts: Sequence[int]) -> Callable[[], Tensor]:
        """See :meth:`World.start_scatter_sum_rows`; uneven ranks are padded to the longest on the way."""
        longest = max(counts)
        if min(counts) != longest:
            padded = rows_N.new_zeros((self.size * longest, *rows_N.shape[1:]))
            for rank, part in enumerate(torch.split(rows_N, list(counts))):
                padded[rank * longest : rank * longest + len(part)] = part
            rows_N = padded
        summed = rows_N.new_empty((longest, *rows_N.shape[1:]))
        work = _reduce_scatter(summed, rows_N.contiguous(), group=self.group, async_op=True)

        def result() -> Tensor:
            with self.waiting(rows_N):
                work.wait()
            return summed[: counts[self.rank]]

        return result

    def barrier(self) -> None:
        """See :meth:`World.barrier`."""
        dist.barrier(group=self.group)

    def waiting(self, tensor: Tensor) -> AbstractContextManager[None]:
        """A wait for the collective of ``tensor``, its larger side, for the account of traffic if there is one."""
        return self.traffic.waiting(tensor) if self.traffic is not None else nullcontext()


def current_world() -> World:
    """The default process group where there is one, else one process."""
    return ProcessGroupWorld() if dist.is_available() and dist.is_initialized() else World()


def local_rank() -> int:
    """This process's number on its own machine, as ``torchrun`` says it; 0 without ``torchrun``."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def global_rank() -> int:
    """This process's number among all of the run, as ``torchrun`` says it; 0 without ``torchrun``."""
    return int(os.environ.get("RANK", "0"))


def restarts() -> int:
    """How often ``torchrun`` has started the ranks of this node again, as it says; 0 without ``torchrun``."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def local_device() -> torch.device:
    """The device of this process: its own GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank() % torch.cuda.device_count())
    return torch.device("cpu")


@contextmanager
def process_group(timeout_seconds: float = 600.0) -> Iterator[World]:
    """The world that ``torchrun`` describes in the environment, or one process without it, for a ``with`` block.

    NCCL on GPUs and gloo on CPUs. ``timeout_seconds`` bounds how long a rank waits for the others in a collective.
    Let go of all that holds the group, such as a ``DistributedDataParallel``, before Python ends: gloo's threads end
    with the group, and one that lets go of a tensor while Python ends aborts the process (pytorch issue 190489).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    device, timeout = local_device(), timedelta(seconds=timeout_seconds)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", timeout=timeout, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=timeout)
    try:
        yield ProcessGroupWorld()
    except BaseException:
        if device.type != "cuda":
            dist.destroy_process_group()
        raise  # NCCL's destroy waits for collectives that the other ranks may never enter: the process's end is enough
    dist.destroy_process_group()


def sum_gradients(
    world: ProcessGroupWorld | None,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """A DDP communication hook: replicas' gradients are SUMMED, where DDP's own rule averages them.

    :class:`~partial_fc.ShardedClassifier` gives the mean over the *global* batch, so each replica holds its part of
    that one gradient and the whole is their sum: ``model.register_comm_hook(None, sum_gradients)``. Without the
    hook the backbone learns ``size`` times slower than the class rows. One all-reduce of the bucket, among the ranks
    of ``world``; None: the default process group. On a GPU it goes on beside the backward pass, and is no wait.
    """
    world = world or ProcessGroupWorld()
    work = dist.all_reduce(bucket.buffer(), group=world.group, async_op=True)
    if not bucket.buffer().is_cuda:
        # A callback would run Python in a thread of gloo, which aborts the process if it is there when Python ends.
        with world.waiting(bucket.buffer()):
            work.wait()
        finished: torch.futures.Future[Tensor] = torch.futures.Future()
        finished.set_result(bucket.buffer())
        return finished
    if world.traffic is not None:
        world.traffic.total_bytes += bucket.buffer().nbytes
    future: torch.futures.Future[list[Tensor]] = work.get_future()
    return future.then(lambda done: done.value()[0])
