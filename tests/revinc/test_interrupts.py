"""Ctrl-C is never lost, and a command that it ends has the exit status that says so."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from revinc.interrupts import lasting_interrupts


@pytest.fixture
def handler():
    """A function that installs a handler of SIGINT; the one before is back after the test."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_a_finalizer_swallows_is_not_lost(drop_ctrl_c):
    before = signal.getsignal(signal.SIGINT)
    with lasting_interrupts() as raise_if_interrupted:
        raise_if_interrupted()
        drop_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            raise_if_interrupted()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_within_another_is_seen_by_both(drop_ctrl_c):
    with lasting_interrupts() as outer:
        with lasting_interrupts() as inner:
            drop_ctrl_c()
            with pytest.raises(KeyboardInterrupt):
                inner()
        with pytest.raises(KeyboardInterrupt):
            outer()


def test_a_handler_of_the_users_own_decides(handler):
    seen = []
    handler(lambda *_: seen.append("seen"))
    with lasting_interrupts() as raise_if_interrupted:
        signal.raise_signal(signal.SIGINT)
        raise_if_interrupted()
    assert seen == ["seen"]


def test_an_ignored_interrupt_stays_ignored(handler):
    handler(signal.SIG_IGN)
    with lasting_interrupts() as raise_if_interrupted:
        signal.raise_signal(signal.SIGINT)
        raise_if_interrupted()


def test_beside_the_main_thread_nothing_is_changed():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with lasting_interrupts() as raise_if_interrupted:
            raise_if_interrupted()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


COMMAND = """
import os, signal, sys, time
from revinc.interrupts import run_to_exit

class CrashingAtExit:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGSEGV)

kept = CrashingAtExit()

def command():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        os.kill(os.getpid(), signal.{name})
        time.sleep(10)
    except KeyboardInterrupt:
        print("said")
    return 130

run_to_exit(command)
"""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_the_status_of_a_stopped_command_is_its_own_whatever_comes_after(name, status):
    child = [sys.executable, "-c", COMMAND.format(name=name)]
    ended = subprocess.run(child, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (status, "said\n")


@pytest.mark.parametrize("status", [0, 1, 2])
def test_other_commands_end_as_python_does(status):
    code = f"from revinc.interrupts import run_to_exit; run_to_exit(lambda: {status})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == status
