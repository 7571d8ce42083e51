"""Whether the disk has room for the checkpoints of a run."""

from __future__ import annotations

import shutil

from launch.assembly.run import Run
from launch.assembly.run_folder import RunFolder
from launch.config.run import Config
from launch.units import bytes_text
from partial_fc.checkpoint.tidying import removable_checkpoints


def refuse_small_disk(folder: RunFolder, run: Run, config: Config) -> None:
    """ValueError where the checkpoints that lie there at once, the one being written too, do not fit on the disk.

    One all-gather of three numbers.
    """
    steps, kept = run.total_steps - run.start_step, config.checkpoint
    ends = sum(stage.stop_step > run.start_step for stage in run.stages)
    saves = -(-steps // (config.save_every_steps or max(steps, 1))) + max(ends - 1, 0)
    there = len(removable_checkpoints(folder.checkpoints, kept.keep_every_steps)) if run.start_step else 0
    more = max(min(there + saves, kept.keep_last + 1) - there, min(saves, 1))  # new ones take the place of those there
    number = more + (steps // kept.keep_every_steps if kept.keep_every_steps else 0)
    each = run.saver.size_bytes()
    path = folder.path.absolute()
    free = shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free
    if number * each > free:
        raise ValueError(
            f"{folder.checkpoints}: {number:,} checkpoints of {bytes_text(each)} need {bytes_text(number * each)}, and "
            f"{bytes_text(free)} are free: make room, choose another run_dir, or keep fewer (checkpoint.keep_last)"
        )
