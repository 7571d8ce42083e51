"""Where machines meet, by which address and network. Two machines for real: ``tests/cluster/namespaces.sh``."""

from __future__ import annotations

import os
import time

import pytest

from launch import meeting
from launch.config.loading import ConfigError
from launch.meeting import GLOO_INTERFACE, NCCL_INTERFACE, Meeting

NOBODYS = "192.0.2.1"  # of a network that is kept for documents


@pytest.mark.parametrize(
    ("endpoint", "place"),
    [
        ("node0:29401", ("node0", 29401)),
        ("node0", ("node0", 29400)),
        ("10.0.0.1:7", ("10.0.0.1", 7)),
        ("[fd00::1]:7", ("fd00::1", 7)),
    ],
)
def test_the_place_of_a_meeting_is_a_host_and_a_port(endpoint: str, place: tuple[str, int]) -> None:
    assert Meeting("2", endpoint).place == place


@pytest.mark.parametrize("endpoint", [":29400", "", "node0:port", "node0:700000"])
def test_what_is_no_place_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT, such as node0:29400"):
        _ = Meeting("2", endpoint).place


def test_a_machine_without_the_address_does_not_host_the_meeting() -> None:
    assert "--rdzv-conf=is_host=0" in Meeting("2", f"{NOBODYS}:29400").words()


def test_the_machine_with_the_address_hosts_the_meeting_and_is_reached_by_it() -> None:
    own = Meeting("2", f"{NOBODYS}:29400").own_address()
    if own is None:
        pytest.skip("needs a network beside the loopback")
    at_home = Meeting("2", f"{own}:29400")
    assert at_home.own_address() == own
    assert {"--rdzv-conf=is_host=1", f"--local-addr={own}"} <= set(at_home.words())
    at_home.wait(0.0)  # for nobody


def test_on_the_loopback_the_first_agent_is_the_host_and_its_name_its_address() -> None:
    words = Meeting("1:2", "127.0.0.1:29400").words()
    assert words == ["--nnodes=1:2", "--rdzv-endpoint=127.0.0.1:29400", "--rdzv-id=127.0.0.1:29400"]


def test_the_address_that_is_given_holds() -> None:
    assert "--local-addr=node3" in Meeting("4", "127.0.0.1:1", "node3").words()


def test_a_name_that_is_not_known_is_waited_for_and_then_told(capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"not known|resolution"):
        Meeting("2", "no-such-host.invalid:29400").wait(0.6)
    assert time.monotonic() - begun >= 0.6
    assert capsys.readouterr().out.startswith("waiting for no-such-host.invalid:29400 (")


@pytest.mark.parametrize("value", ["lo", "lo,lo"])
def test_networks_that_are_there_are_let_through(value: str) -> None:
    meeting.refuse_unknown_interfaces({GLOO_INTERFACE: value, NCCL_INTERFACE: "^docker"})
    meeting.refuse_unknown_interfaces({NCCL_INTERFACE: f"={value}"})
    meeting.refuse_unknown_interfaces({})


@pytest.mark.parametrize("variable", [GLOO_INTERFACE, NCCL_INTERFACE])
def test_a_network_that_is_not_there_is_refused_with_those_that_are(variable: str) -> None:
    with pytest.raises(ConfigError, match=rf"{variable}=eth77: .* no network interface eth77, it has .*\blo\b.*Name"):
        meeting.refuse_unknown_interfaces({variable: "eth77"})


def test_gloo_talks_through_the_network_of_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GLOO_INTERFACE, "")  # so that it is as before at the end
    del os.environ[GLOO_INTERFACE]
    Meeting("2", "127.0.0.1:29400", "127.0.0.1").choose_network()
    assert os.environ[GLOO_INTERFACE] == "lo"
    monkeypatch.setenv(GLOO_INTERFACE, "given")
    Meeting("2", "127.0.0.1:29400", "127.0.0.1").choose_network()
    assert os.environ[GLOO_INTERFACE] == "given"
