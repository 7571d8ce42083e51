"""A port for a test's own server."""

from __future__ import annotations

import contextlib
import secrets
import socket

NEVER_GIVEN = range(10_000, 32_000)  # Linux gives those above to whoever asks for any: a test beside this one too


def free_port(in_a_row: int = 1) -> int:
    """One of this machine's that nothing listens at now, and that nobody is given until the caller takes it.

    The first of so many ``in_a_row``. A port from the range that the system gives to connections could also be given to
    the very connection that asks for a page before anybody serves it, which would then answer itself.
    """
    while True:
        first = secrets.choice(NEVER_GIVEN)
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for port in range(first, first + in_a_row):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
