"""Logging of a run's metrics to TensorBoard or Weights & Biases, by their own libraries."""

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
from revinc.errors import UserError, unknown_name
from revinc.folders import make_own_folder
from revinc.runs import Run

Measurements = dict[int, dict[str, float]]
"""Values by step and name."""

Log = Callable[[Measurements], None]
Sink = Callable[[Run, int], AbstractContextManager[Log]]
"""Opens the log of a run, whose next entry is of the given step."""


@contextmanager
def tensorboard(library: Any, run: Run, first: int) -> Iterator[Log]:
    """A context manager that logs a run for TensorBoard, into the run folder.

    TensorBoard hides the steps from `first` on of earlier files.
    """
    folder = str(make_own_folder(run.path / runs.TENSORBOARD))
    suffix = f".{first}"  # else two files of one second have one name
    with library.SummaryWriter(folder, purge_step=first, filename_suffix=suffix) as writer:

        def log(measurements: Measurements) -> None:
            for step, values in measurements.items():
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
            writer.flush()  # a checkpoint may follow, and a resume from it does not log this again

        yield log


@contextmanager
def wandb(library: Any, run: Run, first: int) -> Iterator[Log]:  # noqa: ARG001
    """A context manager that logs a run to Weights & Biases, with its files in the run folder.

    Its environment variables apply. A resume finds its run by the file that ``resume="auto"`` keeps
    until a run has finished. Steps that a killed run logged after its last checkpoint stay as they
    are.
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

        def log(measurements: Measurements) -> None:
            for step, values in measurements.items():
                tracked.log(values, step=step, commit=True)

        yield log


SINKS = {"tensorboard": (tensorboard, "tensorboardX"), "wandb": (wandb, "wandb")}
"""By name, the function that opens a log, and the library that writes it."""


def find_sink(name: str) -> Sink:
    """Find the function that opens a log of a run at a service, such as ``"wandb"``.

    Raises:
        UserError: if the name is unknown, or its library is not installed.
    """
    if name not in SINKS:
        raise unknown_name("log", name, SINKS)
    sink, library = SINKS[name]
    try:
        return partial(sink, importlib.import_module(library))
    except ImportError as error:
        raise UserError(
            f"logging to {name!r} needs {library}, which is not installed: "
            "pip install 'jax-revinc[tracking]'"
        ) from error


@contextmanager
def tracking(
    sinks: Sequence[Sink], run: Run, begin: Checkpoint
) -> Iterator[Callable[[Checkpoint], None]]:
    """A context manager that opens the logs of a run that starts or resumes at checkpoint `begin`.

    Args:
        sinks: the logs to open.
        run: the run.
        begin: the checkpoint that the run goes on from.

    Yields:
        A function that logs a checkpoint, to be called after every chunk.
    """
    first = begin.step + 1 if begin.history.evaluations else 0
    with ExitStack() as stack:
        logs = [stack.enter_context(sink(run, first)) for sink in sinks]
        logged = begin.step

        def track(checkpoint: Checkpoint) -> None:
            nonlocal logged
            if logs:  # gathering from the history takes time
                measurements = measurements_since(logged, checkpoint, run.config)
                for log in logs:
                    log(measurements)
            logged = checkpoint.step

        yield track


def measurements_since(step: int, checkpoint: Checkpoint, cfg: TrainConfig) -> Measurements:
    """The measurements after `step`, up to a checkpoint: losses, learning rates and evaluations.

    At step N are the loss and learning rate of the N-th update. All values of a step come at once:
    Weights & Biases accepts no values of a step after those of a later one.
    """
    losses = checkpoint.history.loss_columns["loss"][step:]
    measurements = {
        after: {"loss": loss, "lr": cfg.learning_rate(after - 1)}
        for after, loss in enumerate(losses, step + 1)
    }
    evaluation = checkpoint.history.evaluations[-1]
    if evaluation["step"] == checkpoint.step:
        metrics = {metric: evaluation[metric] for metric in METRICS}
        measurements[checkpoint.step] = measurements.get(checkpoint.step, {}) | metrics
    return measurements
