"""The progress of a population's training: a live bar on a terminal, lines of text elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pandas as pd
import rich.progress

from jax_revinc.population.shards import DIVERGED
from jax_revinc.population.store import Store
from jax_revinc.population.success_rate import rate_text
from revinc.config_summary import count, full_summary, short_summary
from revinc.number_format import percent
from revinc.terminal import PlainConsole, styled


class Progress:
    """A reporter that prints the progress of a population's training.

    Args:
        console: where it prints; by default the standard output.
        quiet: print nothing.
        verbose: print the whole config.
    """

    def __init__(
        self, console: PlainConsole | None = None, quiet: bool = False, verbose: bool = False
    ) -> None:
        self.console = console or PlainConsole(quiet=quiet)
        self._verbose = verbose
        self._bar = self.console.progress(
            rich.progress.TextColumn("{task.description}", style="bold", markup=False),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[models]} models", markup=False),
            rich.progress.TextColumn("{task.fields[speed]}", markup=False),
            rich.progress.TextColumn("{task.fields[solved]}", markup=False),
            rich.progress.TimeRemainingColumn(),
            speed_estimate_period=120,
        )
        self._lock = threading.Lock()
        self._task = rich.progress.TaskID(0)
        self._is_waiting = False
        self._solved_at = 1.0
        self._steps = self._models = self._planned = self._solved = self._diverged = 0

    def say(self, sentence: str) -> None:
        """Print a sentence."""
        self.console.print(sentence, soft_wrap=True)

    def busy(self, sentence: str) -> AbstractContextManager[object]:
        """A context in which a terminal shows a sentence and a spinner, for a slow operation."""
        return self.console.status(sentence)

    def header(
        self, store: Store, device: str, n_devices: int, process: int, n_processes: int
    ) -> None:
        """Print the devices, the config and the number of models before training."""
        of = f", process {process} of {n_processes}" if n_processes > 1 else ""
        self.console.print(
            styled("devices"), f" {n_devices} x {device}, {store.width} models each{of}"
        )
        summary = (full_summary if self._verbose else short_summary)(store.config)
        for title, described in summary.items():
            self.console.print(styled(f"{title:7}"), f" {described}")
        shards = count(store.n_shards, "shard")
        self.console.print(styled("models "), f" {len(store.models):,} in {shards}")

    @contextmanager
    def training(
        self, store: Store, missing: Collection[int], done: Collection[int]
    ) -> Iterator[None]:
        """A context that shows a progress bar while `missing` shards (groups of models) train."""
        self._steps, self._solved_at = store.config.steps, store.config.task.solved
        n_missing = sum(len(store.in_shard(shard)) for shard in missing)
        for shard in sorted(done):
            self._count(
                store.shards.read(shard, store.in_shard(shard), [DIVERGED, "holdout_accuracy"])
            )
        if done:
            self.say(f"{self._models:,} models are finished already, {n_missing:,} to go")
        self._planned = self._models + n_missing
        self._task = self._bar.add_task(
            "compiling", total=n_missing * self._steps, models=self._count_text, speed="", solved=""
        )
        with self._bar:
            yield

    def advance(self, n_model_steps: int) -> None:
        """Advance the progress bar by a number of training steps, summed over models."""
        with self._lock:
            self._bar.update(self._task, advance=n_model_steps, description="training")
            speed = self._bar.tasks[self._task].speed
            text = f"{speed / self._steps:,.1f} models/s" if speed else ""
            self._bar.update(self._task, speed=text, models=self._count_text)

    def finished(self, metrics: pd.DataFrame) -> None:
        """Add the models in the table `metrics`, which were just finished, to the shown counts."""
        with self._lock:
            self._count(metrics)
            self._bar.update(self._task, models=self._count_text, solved=self._solved_text)
            self.say(f"{self._count_text} models | {self._solved_text}")

    def waiting(self, missing: int) -> None:
        """Print that this process waits for other processes to train `missing` shards of models."""
        if not self._is_waiting:
            self._is_waiting = True
            self.say(
                f"waiting for {missing} shards of the other processes; a process that ended may be "
                "started again, with the same command"
            )
        self._bar.update(self._task, description=f"waiting for {missing} shards of other processes")

    @property
    def _count_text(self) -> str:
        return f"{self._models:,}/{self._planned:,}"

    @property
    def _solved_text(self) -> str:
        if not self._models:
            return ""
        diverged = f", {self._diverged:,} diverged" if self._diverged else ""
        rate = rate_text(self._solved, self._models)
        return f"{percent(self._solved_at)} of the holdout: {rate}{diverged}"

    def _count(self, metrics: pd.DataFrame) -> None:
        self._models += len(metrics)
        self._solved += int(np.sum(metrics["holdout_accuracy"] >= self._solved_at))
        self._diverged += int(metrics[DIVERGED].notna().sum())
