"""Progress output of a run: a live progress bar on a terminal, and lines with the losses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from revinc.best_evaluation import best_evaluation, has_lost_it
from revinc.checkpoint import Checkpoint
from revinc.config import TrainConfig
from revinc.config_summary import full_summary, short_summary
from revinc.engine import Engine
from revinc.model_config import HookedTransformerConfig
from revinc.number_format import percent, percentage
from revinc.runs import Run
from revinc.tasks import task_flag
from revinc.terminal import PlainConsole, styled
from revinc.weights import parameter_count, parameter_shapes


class Reporter:
    """Prints the progress of one run.

    Args:
        console: where to print; by default stdout.
        quiet: print nothing.
        verbose: print the whole config and a table of the parameters.
    """

    def __init__(
        self, console: PlainConsole | None = None, quiet: bool = False, verbose: bool = False
    ) -> None:
        self.console = console or PlainConsole(quiet=quiet)
        self._verbose = verbose
        self._progress = self.console.progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(show_speed=False),
            TextColumn("{task.fields[speed]}", markup=False),
            TimeRemainingColumn(),
        )
        self._task = TaskID(0)

    def say(self, sentence: str) -> None:
        """Print a sentence."""
        self.console.print(sentence, soft_wrap=True)

    def busy(self, sentence: str) -> AbstractContextManager[object]:
        """A context manager that shows a sentence and a spinner on a terminal."""
        return self.console.status(sentence)

    def header(self, cfg: TrainConfig, engine: Engine) -> None:
        """Print the device, what the config changes in a preset, and the model's size."""
        self.console.print(styled("device"), f" {engine.device} (engine {engine.identity['name']})")
        for title, described in (full_summary if self._verbose else short_summary)(cfg).items():
            self.console.print(styled(f"{title:6}"), f" {described}")
        if self._verbose:
            self.console.print(parameter_table(cfg.model))

    @contextmanager
    def training(self, cfg: TrainConfig, begin: Checkpoint) -> Iterator[None]:
        """A context manager that shows a progress bar while a run trains on from a checkpoint."""
        if begin.step:
            self.say(f"resuming at step {begin.step}")
        self._task = self._progress.add_task(
            "compiling", total=cfg.steps, completed=begin.step, speed=""
        )
        with self._progress:
            yield

    def reached(self, checkpoint: Checkpoint) -> None:
        """Update the progress bar, and print a log line if the checkpoint's step was evaluated.

        The loss is the mean over the whole training split (the tutorial prints one batch's).
        """
        speed = self._progress.tasks[self._task].speed
        self._progress.update(
            self._task,
            description="training" if checkpoint.step else "compiling",
            completed=checkpoint.step,
            speed=f"{speed:,.0f} steps/s" if speed else "",
        )
        last = checkpoint.history.evaluations[-1]
        if last["step"] == checkpoint.step:
            train, holdout = last["train_accuracy"], last["holdout_accuracy"]
            self.console.print(
                f"Step {checkpoint.step:4d} | Loss: {last['train_loss']:.4f} | "
                f"Train Acc: {percentage(train):>6} | Holdout Acc: {percentage(holdout):>6}"
            )

    def finished(self, run: Run) -> None:
        """Print the final accuracy over both splits, and whether the task is solved."""
        cfg, last = run.config, run.metrics.iloc[-1]
        # The splits of a drawn task are of the same size.
        share = 0.5 if cfg.task.is_drawn else cfg.n_train / len(cfg.task.sequences())
        accuracy = share * last.train_accuracy + (1 - share) * last.holdout_accuracy
        which = "both splits" if cfg.task.is_drawn else f"all {len(cfg.task.sequences())} sequences"
        self.say(f"Accuracy on {which} after {cfg.steps} steps: {percentage(accuracy)}")
        right, needed = percentage(last.holdout_accuracy), percent(cfg.task.solved)
        if last.holdout_accuracy >= cfg.task.solved:
            self.say(f"Solved: {right} of the holdout is right.")
            return
        self.say(f"Not solved: {right} of the holdout is right, {needed} is needed.")
        accuracy, loss = (run.metrics[f"holdout_{name}"] for name in ("accuracy", "loss"))
        best = run.metrics.iloc[int(best_evaluation(accuracy.to_numpy(), loss.to_numpy()))]
        if best.holdout_accuracy > last.holdout_accuracy:
            lost_it = has_lost_it(accuracy.to_numpy(), cfg.task.solved)
            was = "It had solved the task" if lost_it else "It was better"
            kept = (
                f"Its weights are kept: jax-revinc inspect {run.path} --step best"
                f"{task_flag(cfg.task)}"
                if run.keep
                else "A run can lose what it has learned; --keep best keeps the weights of its best "
                "evaluation."
            )
            at = f"{percentage(best.holdout_accuracy)} at step {int(best.step):,}"
            self.say(f"{was} before: {at}. {kept}")


def parameter_table(cfg: HookedTransformerConfig) -> Table:
    """A table of every parameter's name, shape and size, with the total below."""
    shapes = parameter_shapes(cfg)
    table = Table("parameter", "shape", box=None, show_footer=True, header_style="bold")
    table.columns[0].footer = "total"
    table.add_column("size", justify="right", footer=f"{parameter_count(cfg):,}")
    for name, shape in shapes.items():
        table.add_row(name, str(list(shape)), f"{math.prod(shape):,}")
    return table
