"""Exits with 0 where the first rank of this container answers with its metrics, else with 1 and why.

By the port that ``report.port`` is unless the run's YAML moves it; PARTIAL_FC_METRICS_PORT says it otherwise.
"""

from __future__ import annotations

import os
import sys
from http.client import HTTPException
from urllib.request import urlopen

PORT = int(os.environ.get("PARTIAL_FC_METRICS_PORT", "9410"))


def main() -> int:
    """Ask once."""
    try:
        with urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=4) as answer:
            is_ours = b"partial_fc_run_info" in answer.read()
    except (OSError, HTTPException) as error:
        print(f"no metrics at port {PORT}: {error}", file=sys.stderr)
        return 1
    print("training" if is_ours else f"port {PORT} is another program's")
    return 0 if is_ours else 1


if __name__ == "__main__":
    sys.exit(main())
