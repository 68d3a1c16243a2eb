"""A signal ends the command, or in training requests a stop; a second interrupt stops at once."""

import signal
import subprocess
import sys
import time

import pytest

from jaxcls._utils.interruption import Interrupted, stop_requests


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_training_is_a_request(number, capfd):
    with stop_requests() as stop:
        stop.training = True
        assert not stop()
        signal.raise_signal(number)
        assert stop()
        time.sleep(0.2)
    assert (
        capfd.readouterr().err
        == f"{number.name}: training saves its state and stops; another Ctrl-C stops it at once\n"
    )


def test_a_signal_after_training_raises():
    with stop_requests() as stop:
        stop.training = False
        with pytest.raises(Interrupted, match="nothing that was saved is lost"):
            signal.raise_signal(signal.SIGTERM)


def test_a_second_interrupt_raises_at_once():
    with stop_requests() as stop:
        stop.training = True
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_request_to_terminate_changes_nothing():
    with stop_requests() as stop:
        stop.training = True
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_step_ends_a_process_whose_main_thread_is_busy(number):
    code = (
        "import os, sys, threading\nfrom jaxcls._utils.interruption import stop_requests\n"
        f"with stop_requests():\n threading.Timer(0.2, os.kill, [os.getpid(), {int(number)}]).start()\n"
        # As XLA's compiler, it releases Python's lock and handles no signal.
        " import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert time.monotonic() - began < 10
    assert (done.returncode, done.stderr) == (
        75,
        "stopped; nothing that was saved is lost; the same command continues\n",
    )


def test_the_previous_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stop_requests():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
