"""One opening of the set at a path, in a process that imports no more than it needs: its figures, printed as JSON.

python -m benchmarks.opened PATH
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.processes import status_bytes
from data_pipeline.formats.by_path import source_at

Figures = dict[str, float]


def opened(path: Path) -> Figures:
    """Seconds by the clock and of all cores, and the process's resident memory; all but pyarrow is imported before."""
    before, used, began = status_bytes("VmRSS"), time.process_time(), time.perf_counter()
    source = source_at(path)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - used,
        "images": len(source),
        "before_bytes": before,
        "after_bytes": status_bytes("VmRSS"),
        "peak_bytes": status_bytes("VmHWM") - before,
    }


if __name__ == "__main__":
    print(json.dumps(opened(Path(sys.argv[1]))))
