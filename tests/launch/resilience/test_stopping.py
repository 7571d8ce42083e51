"""Several signals that are one request, and a later one that is not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import tiny

from launch.resilience.stopping import ONE_REQUEST_SECONDS

pytestmark = pytest.mark.processes

# A rank in a collective whose partner is lost: its main thread never runs Python again, so no handler of Python does.
STUCK = """
import ctypes, signal, sys, torch
from launch.resilience.stopping import StopRequest, leave_on_sigterm
from partial_fc import World

libc, how = ctypes.CDLL(None), sys.argv[1]

def wait():
    print("waits", flush=True)
    while True:
        libc.poll(None, 0, -1)

if how == "training":
    request = StopRequest(World(), torch.device("cpu"))
    with request.listening():
        print("listens", flush=True)
        while not request.is_agreed(8):
            pass
        wait()
leave_on_sigterm()
try:
    print("listens", flush=True)
    while True:
        pass
finally:
    wait()
"""


@pytest.mark.parametrize("how", ["training", "starting"])
def test_signals_within_two_seconds_are_one_and_a_later_one_ends_the_process_at_once(how: str) -> None:
    command = [sys.executable, "-c", STUCK, how]
    with subprocess.Popen(command, env=tiny.environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert next(process.stdout) == "listens\n"
        process.send_signal(signal.SIGTERM)
        assert next(process.stdout) == "waits\n"
        told = time.monotonic()
        for _ in range(10):  # the threads of a killed agent end one after the other
            process.send_signal(signal.SIGTERM)
            time.sleep(0.02)
        assert process.poll() is None
        while process.poll() is None:
            assert time.monotonic() < told + 60.0
            process.send_signal(signal.SIGTERM)
            time.sleep(0.02)
        assert process.wait(1.0) == -signal.SIGTERM
        assert time.monotonic() - told > 0.75 * ONE_REQUEST_SECONDS
