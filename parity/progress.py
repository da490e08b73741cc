"""The progress of a slow parity level: a bar with the time left, or a spinner, on a terminal only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from revinc.terminal import PlainConsole

Item = TypeVar("Item")


def follow(items: Sequence[Item], what: str, done: Iterator[Item] | None = None) -> Iterator[Item]:
    """Yield items, and show a bar of how many are done and how long the others will take.

    Args:
        items: what is gone through.
        what: what is done with the items, in a few words.
        done: yields the results as they are ready, instead of the items.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with PlainConsole().progress(*columns) as bar:
        yield from bar.track(done or items, total=len(items), description=what)


def busy(what: str) -> AbstractContextManager[object]:
    """A context manager that shows a spinner while something runs that can't be counted."""
    return PlainConsole().status(what)
