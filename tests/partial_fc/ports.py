"""A port for a test's own server."""

from __future__ import annotations

import socket


def free_port() -> int:
    """One of this machine's that nothing listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
