"""Printing to a terminal: strings are plain text, never markup or control characters."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console, RenderableType
from rich.status import Status
from rich.text import Text

from revinc.printable_text import printable

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

CLOSED_PIPE = 141
"""The exit status of a command whose output nobody reads any more, as shells show SIGPIPE."""


class PlainConsole(Console):
    """A Rich console that prints each string on one line, as it is, without markup."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **how: Any) -> Text:
        """Convert a string to text; Rich calls this for every string that it prints."""
        return super().render_str(printable(text), **how)

    def status(self, status: RenderableType, **how: Any) -> Status:
        """A context manager that shows a message and a spinner on a terminal."""
        return super().status(styled(status, "") if isinstance(status, str) else status, **how)

    def progress(self, *columns: ProgressColumn, **settings: Any) -> Progress:
        """A context manager that shows progress bars on a terminal and in a notebook, nowhere else.

        Args:
            columns: what each bar shows, from left to right.
            settings: further arguments of ``rich.progress.Progress``.
        """
        from rich.progress import Progress

        # Rich draws its bars in a notebook by ipywidgets.
        shown = self.is_terminal or (self.is_jupyter and find_spec("ipywidgets") is not None)
        return Progress(*columns, console=self, transient=True, disable=not shown, **settings)

    def on_broken_pipe(self) -> None:
        """Raise the broken pipe's error again, so that the command ends itself, not Rich."""
        self.quiet = True
        raise


def styled(words: object, style: str = "bold") -> Text:
    """Text for Rich to print in the given style, without markup of its own."""
    return Text(printable(words), style=style)


class PlainParser(argparse.ArgumentParser):
    """An argparse parser whose errors show the typed words without control characters."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


class PlainFormatter(logging.Formatter):
    """A logging formatter that writes each message on one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


@contextmanager
def plain_output() -> Iterator[None]:
    """A context manager in which every character can be printed, and a warning takes one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not the replacement in a notebook or test
            stream.reconfigure(errors="backslashreplace")
    usual = warnings.formatwarning
    warnings.formatwarning = _warning_line
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _warning_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> str:
    return f"{category.__name__}: {printable(message)}\n"


def drop_output() -> None:
    """Discard the rest of the output, so that the interpreter's exit does not fail to write it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
