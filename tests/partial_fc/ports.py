"""A port for a test's own server."""

from __future__ import annotations

import contextlib
import secrets
import socket

NEVER_GIVEN = range(10_000, 32_768)  # Linux gives those above to whoever asks for any: a test beside this one too


def free_port() -> int:
    """One of this machine's that nothing listens at now, and that nobody is given until the caller takes it."""
    while True:
        port = secrets.choice(NEVER_GIVEN)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
