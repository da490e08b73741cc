"""Handling of Ctrl-C and SIGTERM: neither is lost, and the exit status says which one came."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT
"""The exit status after Ctrl-C."""


@contextmanager
def lasting_interrupts() -> Iterator[Callable[[], None]]:
    """A context manager that remembers a Ctrl-C, which Python may lose.

    It yields a function that raises `KeyboardInterrupt` if Ctrl-C was pressed.

    Python raises `KeyboardInterrupt` wherever the program happens to be, and drops it inside a
    finalizer or a callback. Existing signal handlers stay in force; one that raises no
    `KeyboardInterrupt` interrupts nothing. Outside the main thread, which receives no signals,
    nothing changes.
    """
    happened = False

    def lasting(handler: Callable[[int, FrameType | None], object]) -> Callable[..., None]:
        def handle(number: int, frame: FrameType | None) -> None:
            nonlocal happened
            try:
                handler(number, frame)
            except KeyboardInterrupt:
                happened = True
                raise

        return handle

    def raise_if_interrupted() -> None:
        if happened:
            raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        both = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in both.items() if callable(handler)}
    try:
        for number, handler in before.items():
            signal.signal(number, lasting(handler))
        yield raise_if_interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_to_exit(command: Callable[[], int]) -> NoReturn:
    """Call the function `command`, and end this process with the exit status that it returns.

    SIGTERM stops the command as Ctrl-C does. After either the process ends at once, without the
    interpreter's clean-up: XLA's threads, interrupted while they compile, may end the process by
    another signal, and so change the status.
    """
    stopped_by = signal.SIGINT

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal stopped_by
        stopped_by = signal.SIGTERM
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminate)
    status = command()
    if status != INTERRUPTED:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # its reader has gone
            stream.flush()
    os._exit(128 + stopped_by)
