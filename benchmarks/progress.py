"""The progress bar of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from benchmarks.entrants import Follow
from revinc.terminal import PlainConsole


@contextmanager
def progress_bar(console: PlainConsole, title: str, total: int) -> Iterator[Follow]:
    """A progress bar; yields the function that advances it and names the current work."""
    columns = (
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}", markup=False),
    )
    with console.progress(*columns) as bar:
        task = bar.add_task(title, total=total, doing="")
        done = -1

        def follow(doing: str) -> None:
            nonlocal done
            done += 1
            bar.update(task, completed=done, doing=doing)

        yield follow
