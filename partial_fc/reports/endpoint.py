"""The HTTP endpoint of a registry of metrics, in the clear or under TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server


class EndpointError(OSError):
    """The port of an endpoint cannot be had, or its certificate not be used."""


@dataclass(frozen=True)
class EndpointTLS:
    """PEM files: the endpoint's own certificate and key, and who may ask: holders of certificates that ``clients``
    signed, or everybody without it.
    """

    certificate: Path
    key: Path
    clients: Path | None = None


def started_server(
    registry: CollectorRegistry, address: str, port: int, tls: EndpointTLS | None
) -> tuple[WSGIServer, Thread]:
    """The server of ``registry`` at ``http://address:port/metrics``, and its thread. EndpointError if there is none."""
    files: dict[str, Any] = {} if tls is None else _checked(tls)
    try:
        server, thread = start_http_server(port, addr=address, registry=registry, **files)
    except OSError as error:
        raise EndpointError(error.errno, f"no metrics endpoint at {address} port {port}: {error.strerror}") from error
    if isinstance(server.socket, ssl.SSLSocket):
        _shake_hands_apart(server, server.socket)
    return server, thread


def _shake_hands_apart(server: WSGIServer, listening: ssl.SSLSocket) -> None:
    """Have each handshake in its client's own thread: a client that says nothing then holds up nobody else."""
    listening.do_handshake_on_connect = False  # type: ignore[attr-defined]
    # A handshake that fails now fails in that thread, whose error would be printed into the log of the training.
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]


def _checked(tls: EndpointTLS) -> dict[str, Any]:
    """The files of ``tls`` as prometheus_client takes them. EndpointError for one that cannot be used."""
    context, clients = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls.clients
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if clients is not None:
            context.load_verify_locations(clients)
    except OSError as error:  # SSLError is one
        names = ", ".join(str(file) for file in (tls.certificate, tls.key, clients) if file is not None)
        reason = error.strerror or error
        said = f"no metrics endpoint: expected PEM files of a certificate and its key in {names} ({reason})"
        raise EndpointError(said) from error
    files: dict[str, Any] = {"certfile": str(tls.certificate), "keyfile": str(tls.key)}
    return files | ({"client_cafile": str(clients), "client_auth_required": True} if clients is not None else {})
