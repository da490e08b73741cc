"""What a person sees while a run trains: a live bar on a terminal, the tutorial's lines everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from revinc.checkpoint import Checkpoint
from revinc.config import TrainConfig
from revinc.dataset import make_dataset
from revinc.engine import Engine
from revinc.labels import percent
from revinc.model_config import HookedTransformerConfig
from revinc.runs import Run
from revinc.weights import parameter_count, parameter_shapes


class Reporter:
    """Reports one run. A quiet one says nothing."""

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(highlight=False, quiet=quiet)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(show_speed=False),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[measured]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task = TaskID(0)

    def say(self, sentence: str) -> None:
        """Prints a sentence."""
        self.console.print(sentence, soft_wrap=True)

    def busy(self, sentence: str) -> AbstractContextManager[object]:
        """Within it a terminal shows a sentence, and that something goes on."""
        return self.console.status(sentence)

    def header(self, cfg: TrainConfig, engine: Engine) -> None:
        """The device, the config and the parameter table."""
        sections = cfg.to_dict()
        self.console.print(f"[bold]device[/]  {engine.device} (engine {engine.identity['name']})")
        for section, fields in sections.items():
            described = ", ".join(f"{name}={value}" for name, value in fields.items())
            self.console.print(f"[bold]{section:6}[/]  {described}")
        self.console.print(parameter_table(cfg.model))

    @contextmanager
    def training(self, cfg: TrainConfig, begin: Checkpoint) -> Iterator[None]:
        """Shows the bar while the run trains."""
        if begin.step:
            self.say(f"resuming at step {begin.step}")
        self._task = self._progress.add_task(
            "compiling", total=cfg.steps, completed=begin.step, speed="", measured=""
        )
        with self._progress:
            yield

    def reached(self, point: Checkpoint) -> None:
        """Moves the bar; prints the tutorial's log line if the point has just been evaluated.

        The loss is the mean over the whole training split (the tutorial prints one batch's).
        """
        speed = self._progress.tasks[self._task].speed
        self._progress.update(
            self._task,
            description="training" if point.step else "compiling",
            completed=point.step,
            speed=f"{speed:,.0f} steps/s" if speed else "",
        )
        last = point.history.evaluations[-1]
        if last["step"] == point.step:
            train, holdout = 100 * last["train_accuracy"], 100 * last["holdout_accuracy"]
            self.console.print(
                f"Step {point.step:4d} | Loss: {last['train_loss']:.4f} | "
                f"Train Acc: {train:5.2f}% | Holdout Acc: {holdout:5.2f}%"
            )
            measured = f"loss {last['train_loss']:.4f}  train {train:.1f}%  holdout {holdout:.1f}%"
            self._progress.update(self._task, measured=measured)

    def finished(self, run: Run) -> None:
        """Prints the final accuracy over all sequences, or over those that stand for them."""
        cfg, last = run.config, run.metrics.iloc[-1]
        weight = make_dataset(cfg).train_mask.mean()
        accuracy = weight * last.train_accuracy + (1 - weight) * last.holdout_accuracy
        which = "both splits" if cfg.task.is_drawn else f"all {len(cfg.task.sequences())} sequences"
        self.say(f"Accuracy on {which} after {cfg.steps} steps: {accuracy:.2%}")
        verdict = "solved" if last.holdout_accuracy >= cfg.task.solved else "not solved"
        self.say(f"The task is {verdict}: that takes {percent(cfg.task.solved)} of the holdout")


def parameter_table(cfg: HookedTransformerConfig) -> Table:
    """Every parameter's name, shape and size, with the total below."""
    shapes = parameter_shapes(cfg)
    table = Table("parameter", "shape", box=None, show_footer=True, header_style="bold")
    table.columns[0].footer = "total"
    table.add_column("size", justify="right", footer=f"{parameter_count(cfg):,}")
    for name, shape in shapes.items():
        table.add_row(name, str(list(shape)), f"{math.prod(shape):,}")
    return table
