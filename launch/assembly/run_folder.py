"""The folder of a run."""

from __future__ import annotations

import itertools
from pathlib import Path


def set_earlier_run_aside(run_dir: Path) -> Path | None:
    """Where an earlier run in ``run_dir`` was moved, ``run_dir-1`` or the next free number; None if there was none.

    Two runs in one folder would mix their curves, and an evaluation could read the other's last checkpoint.
    """
    if not any((run_dir / name).exists() for name in ("config.yaml", "metrics.jsonl", "checkpoints")):
        return None
    numbered = (run_dir.with_name(f"{run_dir.name}-{number}") for number in itertools.count(1))
    aside = next(path for path in numbered if not path.exists())
    return run_dir.rename(aside)
