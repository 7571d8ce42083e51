"""Checkpoints written beside the training: a pause for one copy of the state in memory, no more.

A save, on every rank::

    Saver.save(step)                the training waits
      finite weights                  one pass over them, one all-reduce of a number
      the save before is whole?       its error, on any rank, ends the run here
      free disk                       an all-gather and an all-reduce of a number; refused before anything is written
      copies                          the state into memory that is ready since Saver.prepare(), and used by every save
      a fresh folder                  made by rank 0; one all-gather of a number
    a thread of each rank           the training goes on; without room for copies it waits, and files are written from
                                    the state itself, a few MiB at a time
      rank-R-of-S.safetensors         written, synced, its CRC-32 found; then its name and facts in rank-R.json
    rank 0's thread
      backbone.pt, shared.safetensors
      waits for every rank-R.json     over the file system: no collective runs beside the training's own
      manifest.json, the new name, latest; older checkpoints are removed
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from partial_fc.checkpoint import layout
from partial_fc.checkpoint.copies import Copies, room_bytes
from partial_fc.checkpoint.layout import Manifest
from partial_fc.checkpoint.tidying import prune
from partial_fc.checkpoint.training_state import TrainingState
from partial_fc.checkpoint.writing import Saved, Tensors, Writing
from partial_fc.divergence import refuse_spoilt_weights

_NO_NUMBER = 1  # of an error that has none of the system's
_SPARE_BYTES = 1 << 16  # of the disk, for manifests and the file system itself
_SPARE_COPY_BYTES = 1 << 20  # of the copies' memory, for alignment and the step counts of an optimizer's state to come


class Saver:
    """Saves ``state`` in ``folder``; every method is called on all ranks at the same step.

    ``facts`` go into the manifest. Beside the last ``keep_last`` checkpoints those of every ``keep_every_steps`` steps
    are kept. ``on_saved`` is called on rank 0, from a thread, for each checkpoint that is whole; it may be set anew.
    Without ``in_background`` the training waits until the checkpoint is written, in parts: no second copy of the state
    is held. ``last_step`` is that of the last save begun.
    """

    def __init__(
        self,
        folder: Path,
        state: TrainingState,
        facts: dict[str, Any],
        *,
        keep_last: int = 3,
        keep_every_steps: int | None = None,
        in_background: bool = True,
        on_saved: Callable[[Saved], None] = lambda saved: None,
    ) -> None:
        self.folder, self.state, self.facts = folder, state, facts
        self.keep_last, self.keep_every_steps = keep_last, keep_every_steps
        self.in_background, self.on_saved = in_background, on_saved
        self._copies: Copies | None = None
        self._writing: Writing | None = None
        self.last_step: int | None = None

    def prepare(self, *, has_room: bool = True) -> bool:
        """Take the memory for copies of the state and get it ready beside the training; False where saves do without.

        Left out, the first save begins with it and waits for it. ``has_room`` is this rank's answer: where a rank has
        none, or the system gives none, the saves of all ranks are written in parts. One all-reduce of a number, and
        one of the buffers.
        """
        if not self.in_background:
            return False
        size_bytes, device = self.copy_bytes(), self.state.head.weight.device
        with suppress(OSError):
            self._copies = Copies(size_bytes, device) if has_room else None
        lacking = torch.tensor(int(self._copies is None), device=device)
        self.in_background = int(self.state.world.all_sum(lacking)) == 0
        if not self.in_background:
            self._copies = None
        return self.in_background

    def save(self, step: int) -> None:
        """Begin the checkpoint of ``step``. OSError, on all ranks, where a disk is full or an earlier save failed.

        TrainingDiverged, on all ranks, where a weight is not finite.
        """
        head, world = self.state.head, self.state.world
        if head.weight.is_cuda:
            torch.cuda.synchronize(head.weight.device)  # the steps before are not part of the pause
        paused_at = time.perf_counter()
        refuse_spoilt_weights(self.state.backbone, head, step)
        self.wait()
        if self._copies is None:
            self.prepare()
        tensors = self._tensors()
        of_ranks = self._of_ranks(tensors)
        self._refuse_full_disk(step, sum(size for *_, size in of_ranks))
        if self.in_background:
            tensors = self._copied(tensors)
        self._begin_folder(layout.partial_folder(self.folder, step))
        manifest = Manifest(
            step=step,
            head_steps=head.steps,
            num_classes=head.num_classes,
            embedding_dim=head.embedding_dim,
            classes=[(first, stop) for first, stop, _ in of_ranks],
            files={},
            facts=self.facts,
        )
        self._writing = Writing(
            *(self.folder, manifest, tensors, world.rank, self._finished), in_parts=not self.in_background
        )
        self._writing.start(paused_at)
        self.last_step = step
        if not self.in_background:
            self.wait()

    def wait(self) -> None:
        """Return when the last save is whole; raise, on all ranks, if it failed on any. Two all-gathers of a number."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        failure = writing.own_failure()
        try:
            self._agree(failure, f"the checkpoint of step {writing.manifest.step} failed on another rank")
        except Exception:
            writing.give_up()
            raise
        failure = writing.failure_of_commit()
        self._agree(failure, f"the checkpoint of step {writing.manifest.step} could not be finished by rank 0")

    def _agree(self, failure: Exception | None, otherwise: str) -> None:
        """Raise ``failure``, and on the other ranks an OSError of its number that says ``otherwise``; none, if none is.

        One all-gather of a number.
        """
        number = 0 if failure is None else getattr(failure, "errno", None) or _NO_NUMBER
        worst = int(self.state.world.all_gather(torch.tensor(number, device=self.state.head.weight.device)).max())
        if failure is not None:
            raise failure
        if worst:
            raise OSError(worst, otherwise) if worst != _NO_NUMBER else OSError(otherwise)

    def size_bytes(self) -> int:
        """The bytes of a checkpoint, of all ranks together. One all-gather, and one all-reduce of the buffers."""
        return sum(size for *_, size in self._of_ranks(self._tensors())) + self.state.bytes_to_come()

    def copy_bytes(self) -> int:
        """What a copy of what this rank writes takes of its host's memory. One all-reduce of the buffers."""
        to_come = self.state.bytes_to_come() if self.state.world.rank == 0 else 0
        return to_come + _SPARE_COPY_BYTES + sum(map(room_bytes, self._tensors()))

    def _copied(self, tensors: Tensors) -> Tensors:
        """Copies of all of it. They are there when this returns."""
        device, rooms = self.state.head.weight.device, [room_bytes(part) for part in tensors]
        if self._copies is None or self._copies.size_bytes < sum(rooms):  # the state has grown
            self._copies = Copies(sum(rooms), device)
        offsets = accumulate(rooms, initial=0)
        copies = Tensors(*(self._copies(part, offset) for part, offset in zip(tensors, offsets, strict=False)))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return copies

    def _of_ranks(self, tensors: Tensors) -> list[tuple[int, int, int]]:
        """First and last class id, exclusive, and the bytes that each rank writes."""
        head, world = self.state.head, self.state.world
        own = [head.shard.start, head.shard.stop, sum(tensor.nbytes for part in tensors for tensor in part.values())]
        gathered = world.all_gather(torch.tensor(own, device=head.weight.device))
        return [(first, stop, size) for first, stop, size in gathered.tolist()]

    def _finished(self, saved: Saved) -> None:
        prune(self.folder, self.keep_last, self.keep_every_steps)
        self.on_saved(saved)

    def _tensors(self) -> Tensors:
        backbone = self.state.backbone.state_dict()
        backbone |= {name: mean for name, mean in self.state.averaged_buffers().items() if name in backbone}
        if self.state.world.rank != 0:
            return Tensors(self.state.of_rank(), {}, {})
        return Tensors(self.state.of_rank(), self.state.shared(), backbone)

    def _begin_folder(self, partial: Path) -> None:
        """Make it, on rank 0, fresh; OSError, on all ranks, where that fails. One all-gather of a number."""
        failure = None
        if self.state.world.rank == 0:
            try:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            except OSError as error:
                failure = error
        self._agree(failure, f"{partial} could not be made by rank 0")

    def _refuse_full_disk(self, step: int, size_bytes: int) -> None:
        """OSError, on all ranks, where rank 0's disk has no room."""
        room, failure = torch.zeros((), dtype=torch.int64, device=self.state.head.weight.device), None
        if self.state.world.rank == 0:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                room.fill_(shutil.disk_usage(self.folder).free)
            except OSError as error:
                failure = error
        self._agree(failure, f"rank 0 does not learn what {self.folder} has room for")
        free = int(self.state.world.all_sum(room))
        if free < size_bytes + _SPARE_BYTES:
            raise OSError(
                f"no space for {layout.step_folder(self.folder, step)}: {size_bytes:,} bytes are needed and {free:,} "
                "are free. The checkpoints before it are whole: make room, or keep fewer, and give the command again"
            )
