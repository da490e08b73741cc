"""What a person sees while a population trains: a live bar on a terminal, a line per chunk elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pandas as pd
import rich.progress
from rich.console import Console

from jax_revinc.population.chunks import DIVERGED
from jax_revinc.population.store import Store
from jax_revinc.population.success import rate_text
from revinc.labels import percent


class Progress:
    """Reports the training of a population. A quiet one says nothing."""

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(highlight=False, quiet=quiet)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("[bold]{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[models]} models"),
            rich.progress.TextColumn("{task.fields[speed]}"),
            rich.progress.TextColumn("{task.fields[solved]}"),
            rich.progress.TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
            speed_estimate_period=120,
        )
        self._lock = threading.Lock()
        self._task = rich.progress.TaskID(0)
        self._is_waiting = False
        self._solved_at = 1.0
        self._steps = self._models = self._planned = self._solved = self._diverged = 0

    def say(self, sentence: str) -> None:
        """Prints a sentence."""
        self.console.print(sentence, soft_wrap=True, markup=False)

    def busy(self, sentence: str) -> AbstractContextManager[object]:
        """Within it a terminal shows a sentence, and that something goes on."""
        return self.console.status(sentence)

    def header(
        self, store: Store, device: str, n_devices: int, process: int, n_processes: int
    ) -> None:
        """What trains, on what."""
        of = f", process {process} of {n_processes}" if n_processes > 1 else ""
        self.console.print(
            f"[bold]devices[/]  {n_devices} x {device}, {store.width} models each{of}"
        )
        for section, fields in store.config.to_dict().items():
            described = ", ".join(f"{name}={value}" for name, value in fields.items())
            self.console.print(f"[bold]{section:7}[/]  {described}")
        self.console.print(f"[bold]models[/]   {len(store.models):,} in {store.n_chunks} chunks")

    @contextmanager
    def training(
        self, store: Store, missing: Collection[int], done: Collection[int]
    ) -> Iterator[None]:
        """Shows the bar while the chunks that are missing train."""
        self._steps, self._solved_at = store.config.steps, store.config.task.solved
        n_missing = sum(len(store.in_chunk(chunk)) for chunk in missing)
        for chunk in sorted(done):
            self._count(
                store.chunks.read(chunk, store.in_chunk(chunk), [DIVERGED, "holdout_accuracy"])
            )
        if done:
            self.say(f"{self._models:,} models are finished already, {n_missing:,} to go")
        self._planned = self._models + n_missing
        self._task = self._bar.add_task(
            "compiling", total=n_missing * self._steps, models=self._count_text, speed="", solved=""
        )
        with self._bar:
            yield

    def moved(self, n_model_steps: int) -> None:
        """Moves the bar."""
        with self._lock:
            self._bar.update(self._task, advance=n_model_steps, description="training")
            speed = self._bar.tasks[self._task].speed
            text = f"{speed / self._steps:,.1f} models/s" if speed else ""
            self._bar.update(self._task, speed=text, models=self._count_text)

    def finished(self, measured: pd.DataFrame) -> None:
        """Counts the models of a chunk that has just been written."""
        with self._lock:
            self._count(measured)
            self._bar.update(self._task, models=self._count_text, solved=self._solved_text)
            self.say(f"{self._count_text} models | {self._solved_text}")

    def waiting(self, missing: int) -> None:
        """Says that other processes are not done."""
        if not self._is_waiting:
            self._is_waiting = True
            self.say(
                f"waiting for {missing} chunks of the other processes; one that has ended may be started "
                "again, with the same command"
            )
        self._bar.update(self._task, description=f"waiting for {missing} chunks of other processes")

    @property
    def _count_text(self) -> str:
        return f"{self._models:,}/{self._planned:,}"

    @property
    def _solved_text(self) -> str:
        if not self._models:
            return ""
        diverged = f", {self._diverged:,} diverged" if self._diverged else ""
        return f"{percent(self._solved_at)} of the holdout: {rate_text(self._solved, self._models)}{diverged}"

    def _count(self, measured: pd.DataFrame) -> None:
        self._models += len(measured)
        self._solved += int(np.sum(measured["holdout_accuracy"] >= self._solved_at))
        self._diverged += int(measured[DIVERGED].notna().sum())
