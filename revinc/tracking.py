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

Rows = dict[int, dict[str, float]]
"""By the step, what was measured there, by its name."""

Log = Callable[[Rows], None]
Sink = Callable[[Run, int], AbstractContextManager[Log]]
"""Opens the log of a run, whose next entry is of a step."""


@contextmanager
def tensorboard(library: Any, run: Run, first: int) -> Iterator[Log]:
    """Event files in the run folder. TensorBoard hides what earlier files have of `first` and later steps."""
    folder, suffix = str(run.path / runs.TENSORBOARD), f".{first}"  # files are named by the second
    with library.SummaryWriter(folder, purge_step=first, filename_suffix=suffix) as writer:

        def log(rows: Rows) -> None:
            for step, values in rows.items():
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
            writer.flush()  # a checkpoint may follow, and who goes on from there writes this no more

        yield log


@contextmanager
def wandb(library: Any, run: Run, first: int) -> Iterator[Log]:  # noqa: ARG001
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
            for step, values in rows.items():
                tracked.log(values, step=step, commit=True)

        yield log


SINKS = {"tensorboard": (tensorboard, "tensorboardX"), "wandb": (wandb, "wandb")}
"""How each log is opened, and the library that writes it."""


def find_sink(name: str) -> Sink:
    """That of `SINKS` with this name.

    Raises:
        UserError: if there is none such, or its library is not installed.
    """
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
    first = begin.step + 1 if begin.history.evaluations else 0
    with ExitStack() as stack:
        logs = [stack.enter_context(sink(run, first)) for sink in sinks]
        logged = begin.step

        def reached(point: Checkpoint) -> None:
            nonlocal logged
            if logs:  # without them there is nothing to gather from the history
                rows = measured_since(logged, point, run.config)
                for log in logs:
                    log(rows)
            logged = point.step

        yield reached


def measured_since(step: int, point: Checkpoint, cfg: TrainConfig) -> Rows:
    """What was measured after `step` and up to the point: at N the loss and the rate of the N-th update, and evaluations.

    So an entry is whole at once: W&B takes no more of a step when it has a later one.
    """
    losses = point.history.loss_table["loss"][step:]
    rows = {
        after: {"loss": loss, "lr": cfg.learning_rate(after - 1)}
        for after, loss in enumerate(losses, step + 1)
    }
    evaluation = point.history.evaluations[-1]
    if evaluation["step"] == point.step:
        metrics = {metric: evaluation[metric] for metric in METRICS}
        rows[point.step] = rows.get(point.step, {}) | metrics
    return rows
