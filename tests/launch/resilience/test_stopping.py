"""Several signals that are one request, and a later one that is not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import tiny

from launch.resilience.hearing import ONE_REQUEST_SECONDS

pytestmark = pytest.mark.processes

# A rank in a collective whose partner is lost: its main thread never runs Python again, so no handler of Python does.
STUCK = """
import ctypes, signal, sys, torch
from launch.resilience.hearing import leave_on_sigterm
from launch.resilience.stopping import StopRequest
from partial_fc import World

libc, how = ctypes.CDLL(None), sys.argv[1]

def wait():
    print("waits", flush=True)
    mutex = ctypes.create_string_buffer(64)
    while True:
        libc.pthread_mutex_lock(mutex)  # the second time for good: no signal ends it

leave_on_sigterm()
if how == "stuck":
    with StopRequest(World(), torch.device("cpu")).listening():
        print("listens", flush=True)
        wait()
if how == "training":
    request = StopRequest(World(), torch.device("cpu"))
    with request.listening():
        print("listens", flush=True)
        while not request.is_agreed(8):
            pass
        wait()
try:
    print("listens", flush=True)
    while True:
        pass
finally:
    wait()
"""


@pytest.mark.parametrize("how", ["stuck", "training", "starting"])
def test_signals_within_two_seconds_are_one_and_a_later_one_ends_the_process_at_once(how: str) -> None:
    command = [sys.executable, "-c", STUCK, how]
    with subprocess.Popen(command, env=tiny.environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert next(process.stdout) == "listens\n"
        told = time.monotonic()  # the process hears of it later: it cannot end sooner than two seconds from here
        process.send_signal(signal.SIGTERM)
        assert next(process.stdout) == "waits\n"
        while process.poll() is None:  # the threads of a killed agent end one after the other
            assert time.monotonic() < told + 60.0
            process.send_signal(signal.SIGTERM)
            time.sleep(0.02)
        assert process.wait(1.0) == 128 + signal.SIGTERM
        assert time.monotonic() - told > ONE_REQUEST_SECONDS


@pytest.mark.parametrize(("how", "ends"), [("starting", True), ("training", False)])
def test_one_signal_is_enough_for_a_process_that_only_has_to_leave(how: str, ends: bool) -> None:
    """It waits for a partner that has left; one that trains has a step to save, and as long as that takes."""
    script = "from launch.resilience import hearing\nhearing.UNWINDING_SECONDS = 0.5\n" + STUCK
    with subprocess.Popen(
        [sys.executable, "-c", script, how], env=tiny.environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert next(process.stdout) == "listens\n"
        process.send_signal(signal.SIGTERM)
        assert next(process.stdout) == "waits\n"
        try:
            assert (process.wait(60.0 if ends else 2.0), ends) == (128 + signal.SIGTERM, True)
        except subprocess.TimeoutExpired:
            assert not ends
            process.kill()


def test_a_request_that_is_repeated_after_the_ranks_agreed_does_not_cut_the_end_short() -> None:
    """The sinks are closed, and what is said is said, after `listening` is left."""
    script = """
import os, signal, time, torch
from launch.resilience.hearing import leave_on_sigterm
from launch.resilience.stopping import StopRequest
from partial_fc import World

leave_on_sigterm()
request = StopRequest(World(), torch.device("cpu"))
with request.listening():
    os.kill(os.getpid(), signal.SIGTERM)
    assert not request.is_agreed(7)
    assert request.is_agreed_now()
    assert request.is_agreed(7)
for _ in range(5):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
print("said")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=tiny.environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "said\n", "")


def test_a_handler_of_another_hears_as_before() -> None:
    """torchrun sets its own in the agent, which heard with ours while it waited for the others."""
    script = """
import os, signal, time
from launch.resilience.hearing import ONE_REQUEST_SECONDS, leave_on_sigterm

leave_on_sigterm()
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(time.monotonic()))
for _ in range(2):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1.2 * ONE_REQUEST_SECONDS)
if not (child := os.fork()):
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(0)
os.waitpid(child, 0)
print(len(heard))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=tiny.environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
