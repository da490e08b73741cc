"""A run's metrics in TensorBoard or Weights & Biases while it trains, by these projects' own libraries."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

from revinc import runs
from revinc.checkpoint import Checkpoint
from revinc.config import TrainConfig
from revinc.engine import METRICS
from revinc.errors import UserError, near_names
from revinc.runs import Run

Rows = list[tuple[int, dict[str, float]]]
"""Steps, and what was measured there by name."""

Log = Callable[[Rows], None]
Sink = Callable[[Run, int], AbstractContextManager[Log]]
"""Opens the log of a run that goes on at a step."""


@contextmanager
def tensorboard(library: Any, run: Run, begin: int) -> Iterator[Log]:
    """Event files in the run folder. TensorBoard hides what earlier files have of `begin` and later steps."""
    folder, suffix = str(run.path / runs.TENSORBOARD), f".{begin}"  # files are named by the second
    with library.SummaryWriter(folder, purge_step=begin, filename_suffix=suffix) as writer:

        def log(rows: Rows) -> None:
            for step, values in rows:
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
            writer.flush()  # a checkpoint may follow, and whoever resumes from it writes this no more

        yield log


@contextmanager
def wandb(library: Any, run: Run, begin: int) -> Iterator[Log]:  # noqa: ARG001
    """A run of Weights & Biases, with its files in the run folder; its environment variables hold.

    A resume finds its run again by the file that ``resume="auto"`` keeps until a run has finished well. Steps
    that are there already, of a run that was killed after its last checkpoint, stay as they are.
    """
    try:
        open_run = library.init(
            project=os.environ.get("WANDB_PROJECT", "jax-revinc"),
            name=os.environ.get("WANDB_NAME", run.path.name),
            dir=str(run.path),
            config=run.config.to_dict(),
            resume="auto",
        )
    except library.Error as error:
        raise UserError(f"wandb can't log the run: {error}") from error
    with open_run as tracked:

        def log(rows: Rows) -> None:
            for step, values in rows:
                tracked.log(values, step=step)

        yield log


SINKS = {"tensorboard": (tensorboard, "tensorboardX"), "wandb": (wandb, "wandb")}
"""How each log is opened, and the library that writes it."""


def find_sinks(names: Sequence[str]) -> list[Sink]:
    """Those of `SINKS` that have these names.

    Raises:
        UserError: if there is none such, or its library is not installed.
    """
    return [find_sink(name) for name in dict.fromkeys(names)]


def find_sink(name: str) -> Sink:
    """See `find_sinks`."""
    if name not in SINKS:
        raise UserError(
            f"log {name!r} is unknown{near_names(name, SINKS)} (known: {', '.join(SINKS)})"
        )
    sink, library = SINKS[name]
    try:
        return partial(sink, importlib.import_module(library))
    except ImportError as error:
        raise UserError(
            f"log {name!r} needs {library}, which is not installed: pip install 'jax-revinc[tracking]'"
        ) from error


@contextmanager
def tracking(
    sinks: Sequence[Sink], run: Run, begin: Checkpoint
) -> Iterator[Callable[[Checkpoint], None]]:
    """Logs of a run that goes on at `begin`: a function to be told of every point that it reaches."""
    with ExitStack() as stack:
        logs = [stack.enter_context(sink(run, begin.step)) for sink in sinks]
        logged = begin.step

        def reached(point: Checkpoint) -> None:
            nonlocal logged
            rows = measured_since(logged, point, run.config)
            for log in logs:
                log(rows)
            logged = point.step

        if begin.history.evaluations:
            reached(begin)
        yield reached


def measured_since(step: int, point: Checkpoint, cfg: TrainConfig) -> Rows:
    """At every step from `step` to the point its batch's loss and learning rate, and there the evaluation, if any."""
    losses = point.history.loss_table["loss"][step:]
    rows: Rows = [
        (at, {"loss": loss, "lr": cfg.learning_rate(at)}) for at, loss in enumerate(losses, step)
    ]
    evaluation = point.history.evaluations[-1]
    if evaluation["step"] == point.step:
        rows.append((point.step, {metric: evaluation[metric] for metric in METRICS}))
    return rows
