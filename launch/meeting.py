"""Where the machines of a run find each other, and by which address and network."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from launch.config.loading import ConfigError

PATIENCE_SECONDS = 600.0  # torchrun's own, once a machine is there
DEFAULT_PORT = 29400  # torchrun's own
GLOO_INTERFACE, NCCL_INTERFACE = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
_POLL_SECONDS, _ANSWER_SECONDS = 0.5, 5.0
_SIOCGIFADDR = 0x8915  # in linux/sockios.h: the IPv4 address of an interface


@dataclass(frozen=True)
class Meeting:
    """Where the nodes of a run find each other: ``nodes`` is how many, as 4 or 2:4, ``endpoint`` HOST:PORT of one.

    ``address`` is this node's, as the others reach it; None for the one by which it reaches the meeting.
    """

    nodes: str
    endpoint: str
    address: str | None = None

    @property
    def place(self) -> tuple[str, int]:
        """Host and port. ConfigError where that is not what ``endpoint`` says."""
        try:
            parts = urlsplit(f"//{self.endpoint}")
            host, port = parts.hostname, parts.port or DEFAULT_PORT
        except ValueError:
            host, port = None, 0
        if not host:
            raise ConfigError(f"--meet {self.endpoint}: expected HOST:PORT, such as node0:29400")
        return host, port

    def words(self) -> list[str]:
        """What torchrun is told, once the host's name is known here: see :meth:`wait`.

        torchrun takes a machine for the host by its name alone: where that has several addresses nobody would be it.
        On the loopback the first agent that takes the port is the host.
        """
        address, addresses = self.own_address(), addresses_of(self.place[0])
        at = [f"--local-addr={address}"] if address else []
        hosts = [] if all(map(_is_loopback, addresses)) else [f"--rdzv-conf=is_host={int(any(map(is_own, addresses)))}"]
        return [f"--nnodes={self.nodes}", f"--rdzv-endpoint={self.endpoint}", f"--rdzv-id={self.endpoint}", *at, *hosts]

    def own_address(self) -> str | None:
        """By which the others reach this machine; None for what its name says, where all that is known is loopback."""
        if self.address:
            return self.address
        return next((way for way in map(_way_to, addresses_of(self.place[0])) if way and not _is_loopback(way)), None)

    def wait(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Return when the machine that hosts the meeting answers, on that machine at once; it may start later.

        OSError where that takes longer than ``patience_seconds``: no such name, nobody there, a closed port.
        """
        until, waits = time.monotonic() + patience_seconds, False
        while (error := self._silence()) is not None:
            if time.monotonic() > until:
                raise error
            if not waits:
                print(f"waiting for {self.endpoint} ({error.strerror or error})", flush=True)
            waits = True
            time.sleep(_POLL_SECONDS)

    def _silence(self) -> OSError | None:
        """Why the host of the meeting does not answer; None where it does, or is this machine."""
        host, port = self.place
        try:
            if not any(map(is_own, addresses_of(host))):
                socket.create_connection((host, port), timeout=_ANSWER_SECONDS).close()
        except OSError as error:
            return error
        return None

    def choose_network(self) -> None:
        """Have gloo talk through the network of this machine's address, unless the environment names one.

        By default it goes by the machine's name, which on Debian is 127.0.1.1: no other machine reaches that.
        """
        address = self.own_address()
        if address and (name := interface_of(address)):
            os.environ.setdefault(GLOO_INTERFACE, name)

    def failed(self, error: Exception) -> str:
        """What to look at where the nodes did not meet."""
        return (
            f"this machine did not meet the others at {self.endpoint} ({error}): give the same --nodes {self.nodes} "
            f"and --meet {self.endpoint} on each, start them within ten minutes, and let the port be reached; where a "
            "machine has several networks, --address says by which it is reached"
        )

    def lost(self) -> str:
        """What to do where the machine that hosts the meeting is gone."""
        return (
            f"the machines of this run meet at {self.endpoint}, which cannot be reached, or no longer: its machine is "
            "gone, or another program has the port. Give the same command again on every machine: they go on from the "
            "last checkpoint"
        )


def addresses_of(host: str) -> list[str]:
    """The addresses of a name. OSError where it has none."""
    return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)))


def is_own(address: str) -> bool:
    """Whether ``address`` is this machine's, whatever names say: whether a socket can have it."""
    with socket.socket(_family(address)) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def interface_of(host: str) -> str | None:
    """The network interface that has an address of ``host``, ``eth0``; None where no interface says so."""
    addresses = addresses_of(host)
    return next((name for name in interfaces() if _address_of_interface(name) in addresses), None)


def interfaces() -> list[str]:
    """The names of this machine's network interfaces."""
    return [name for _, name in socket.if_nameindex()]


def refuse_unknown_interfaces(environment: Mapping[str, str]) -> None:
    """ConfigError where ``environment`` names a network interface that this machine does not have."""
    known = interfaces()
    if (gloo := environment.get(GLOO_INTERFACE)) and (strange := set(gloo.split(",")) - set(known)):
        raise ConfigError(_unknown(GLOO_INTERFACE, gloo, strange, known))
    nccl = environment.get(NCCL_INTERFACE, "")
    prefixes = nccl.removeprefix("=").split(",")
    if nccl and not nccl.startswith("^") and not any(name.startswith(tuple(prefixes)) for name in known):
        raise ConfigError(_unknown(NCCL_INTERFACE, nccl, prefixes, known))


def _unknown(variable: str, value: str, strange: Iterable[str], known: Iterable[str]) -> str:
    return (
        f"{variable}={value}: this machine has no network interface {' or '.join(sorted(strange))}, it has "
        f"{', '.join(known)}. Name one of these, or leave the variable out and give --address where the machine has "
        "several networks"
    )


def _way_to(address: str) -> str | None:
    """This machine's own address on the way to ``address``; None where there is no way. Nothing is sent."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, DEFAULT_PORT))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _address_of_interface(name: str) -> str | None:
    """Its first IPv4 address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback
