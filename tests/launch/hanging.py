"""Training of which one rank hangs once: ``python -m hanging RANK STEP CONFIG`` starts two ranks, and again if need be.

The rank hangs in STEP, counted from 1, while it waits for its images.
"""

from __future__ import annotations

import os
import sys
import time

from launch.processes import run_ranks


def hang_here() -> None:
    """Never come back."""
    print(f"hangs at {time.time()}", flush=True)
    while True:
        time.sleep(1.0)


def main() -> int:
    if "RANK" not in os.environ:
        return run_ranks("hanging", sys.argv[1:], 2, max_restarts=1)
    from data_pipeline.loader.image_loader import Batch, ImageLoader
    from launch import train

    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "1" and os.environ["RANK"] == "0":
        print(f"again at {time.time()}", flush=True)
    rank, step, config = sys.argv[1:]
    given, calls = ImageLoader.__next__, 0

    def hanging(loader: ImageLoader) -> Batch:
        nonlocal calls
        calls += 1
        if calls == int(step):
            hang_here()
        return given(loader)

    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == rank:
        ImageLoader.__next__ = hanging  # type: ignore[method-assign, assignment]
    return train.main([config])


if __name__ == "__main__":
    sys.exit(main())
