"""The training loop of a run on any engine: evaluations, snapshots, checkpoints, resuming."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from revinc.best_evaluation import BestSoFar
from revinc.checkpoint import Checkpoint, History
from revinc.config import TrainConfig
from revinc.dataset import Dataset
from revinc.engine import Engine, evaluation_steps, longest_chunk
from revinc.errors import UserError
from revinc.interrupts import lasting_interrupts
from revinc.progress_output import Reporter
from revinc.run_request import RunRequest
from revinc.run_writer import RunWriter
from revinc.runs import CHECKPOINT
from revinc.tasks import task_flag
from revinc.tracking import tracking
from revinc.weights import StateDict

SECONDS_BETWEEN_CHECKPOINTS = 1.0


class Diverged(RuntimeError):
    """Raised when a training's loss or weights became NaN or infinite."""


class Interrupted(KeyboardInterrupt):
    """Raised when Ctrl-C has stopped a training and the run can be resumed."""


class Point(NamedTuple):
    """The state of a run at a pause of its training: a checkpoint and weights, all finite.

    Attributes:
        checkpoint: everything that a resume needs.
        weights: the weights, by their TransformerLens names.
    """

    checkpoint: Checkpoint
    weights: StateDict

    @property
    def step(self) -> int:
        """The number of updates that the run has made so far."""
        return self.checkpoint.step


def run_training(
    request: RunRequest,
    engine: Engine,
    data: Dataset,
    draw_weights: Callable[[], StateDict],
    reporter: Reporter,
) -> None:
    """Train a run and write its folder, from step 0 or from its checkpoint.

    Args:
        request: what to train and where.
        engine: executes the run.
        data: the dataset of the run.
        draw_weights: draws the initial weights, if they are not given and the run is new.
        reporter: where progress is shown.

    Raises:
        UserError: if the run can't be written or resumed.
        Diverged: naming the first step whose loss is NaN or infinite. The last good state stays as
            a checkpoint and a snapshot.
        Interrupted: on Ctrl-C, with a checkpoint of the last whole chunk.
    """
    with RunWriter(request, engine.identity, draw_weights) as writer:
        reporter.header(request.cfg, engine)
        if request.resume and not writer.resumed:
            reporter.say(f"nothing to resume in {request.out}: starting at step 0")
        if writer.run.finished:
            reporter.say(f"{request.out} is finished already")
            if writer.run.keep:  # the run may have been stopped just before these were deleted
                writer.drop_earlier_bests(writer.run.best_step)
        else:
            _train(request, engine, data, writer, reporter)


def _train(
    request: RunRequest, engine: Engine, data: Dataset, writer: RunWriter, reporter: Reporter
) -> None:
    cfg, run = request.cfg, writer.run
    saved_at = time.monotonic()
    point = None

    def save_snapshot_if_due(point: Point) -> None:
        for evaluation in point.checkpoint.history.evaluations[-1:]:
            best.add(evaluation)
        is_best = run.keep is not None and point.step == best.step
        if is_best or point.step in (*cfg.snapshots, cfg.steps):
            writer.save_snapshot(point.step, point.weights)

    try:
        first = engine.to_arrays(engine.start(run.recorded_weights(step=0)))
        begin = writer.load_checkpoint(first) or Checkpoint(0, first)
        point = Point(begin, engine.weights(restore(engine, begin)))
        best = BestSoFar(begin.history.evaluations)
        save_snapshot_if_due(point)  # the run may have been interrupted just before it was saved
        with (
            lasting_interrupts() as raise_if_interrupted,
            reporter.training(cfg, begin),
            tracking(request.sinks, run, begin) as track,
        ):
            for reached in points(engine, data, begin):
                # First: a resume never logs again what a checkpoint holds.
                track(reached.checkpoint)
                point = reached
                reporter.reached(point.checkpoint)
                save_snapshot_if_due(point)
                if time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                    writer.save_checkpoint(point.checkpoint)
                    saved_at = time.monotonic()
                    if run.keep:  # only now: a resume begins at a checkpoint, and needs its best
                        writer.drop_earlier_bests(best.step)
                raise_if_interrupted()
    except KeyboardInterrupt:
        if point is not None:
            writer.save_checkpoint(point.checkpoint)
        raise Interrupted(
            f"the training stopped at step {point.step if point else 0}; to go on, run it again "
            f"with --out {writer.path} --resume{task_flag(cfg.task)}"
        ) from None
    except Diverged as error:
        assert point is not None
        writer.save_snapshot(point.step, point.weights)
        writer.save_checkpoint(point.checkpoint)
        raise Diverged(
            f"{error} (lr={cfg.lr:g}; a smaller one may help); the last good weights, of step "
            f"{point.step}, are among the snapshots in {writer.path}"
        ) from None
    writer.finish(point.weights, point.checkpoint.history)
    if run.keep:
        writer.drop_earlier_bests(best.step)


def points(engine: Engine, data: Dataset, begin: Checkpoint) -> Iterator[Point]:
    """Train a run from a checkpoint on, and yield its state at every pause of the training.

    Args:
        engine: executes the run.
        data: the dataset of the run.
        begin: where to go on.

    Yields:
        Points whose losses and weights are finite. A new run is first yielded at step 0. One that
        diverges is last yielded at the last good step.

    Raises:
        UserError: if `begin` is not of this engine.
        Diverged: after the last good point, if a loss or weight becomes NaN or infinite.
    """
    cfg = data.cfg
    evaluated = set(evaluation_steps(cfg))
    state, checkpoint = restore(engine, begin), begin
    if not begin.history.evaluations:
        metrics = engine.evaluate(state)
        if not is_finite(metrics):
            raise Diverged(f"the loss became NaN or infinite at step {begin.step}")
        history = begin.history.with_evaluation(begin.step, metrics)
        checkpoint = Checkpoint(begin.step, begin.engine_arrays, history)
        yield Point(checkpoint, engine.weights(state))
    for start, stop in pairwise(boundaries(cfg, begin.step)):
        rows = data.rows(start, stop)
        state, losses = engine.advance(state, rows)
        weights = engine.weights(state)
        history = checkpoint.history.with_losses(losses)
        if stop in evaluated:
            history = history.with_evaluation(stop, engine.evaluate(state))
        n_good = good_updates(losses, weights, history, stop)
        if n_good < len(rows):
            yield from replay(engine, checkpoint, rows[: max(n_good - 1, 0)])
            raise Diverged(f"the loss became NaN or infinite at step {start + n_good}")
        checkpoint = Checkpoint(stop, engine.to_arrays(state), history)
        yield Point(checkpoint, weights)


def good_updates(
    losses: Float[np.ndarray, " steps"], weights: StateDict, history: History, stop: int
) -> int:
    """The number of updates in a chunk of steps before a loss or a weight became NaN or infinite.

    Args:
        losses: the loss of each batch before its update.
        weights: the weights after the chunk.
        history: all measurements so far.
        stop: the step after the chunk.
    """
    if not np.isfinite(losses).all():
        return int(np.argmin(np.isfinite(losses)))
    evaluation = history.evaluations[-1]
    whole = all(np.isfinite(weight).all() for weight in weights.values())
    whole = whole and (evaluation["step"] != stop or is_finite(evaluation))
    return len(losses) if whole else len(losses) - 1


def replay(
    engine: Engine, begin: Checkpoint, rows: Int[np.ndarray, "steps batch"]
) -> Iterator[Point]:
    """Train a run from a checkpoint on the batches `rows`, and yield its state after the last."""
    if len(rows):
        state, losses = engine.advance(restore(engine, begin), rows)
        history = begin.history.with_losses(losses)
        checkpoint = Checkpoint(begin.step + len(rows), engine.to_arrays(state), history)
        yield Point(checkpoint, engine.weights(state))


def restore(engine: Engine, checkpoint: Checkpoint) -> Any:
    """Restore an engine's state from a checkpoint.

    Raises:
        UserError: if the checkpoint lacks an array that the engine needs.
    """
    try:
        return engine.from_arrays(checkpoint.engine_arrays)
    except KeyError as error:
        raise UserError(
            f"the checkpoint {CHECKPOINT} lacks the array {error}; delete the file to start again "
            "at step 0"
        ) from error


def is_finite(metrics: dict[str, float]) -> bool:
    """Whether both losses of an evaluation are finite."""
    return bool(np.isfinite([metrics["train_loss"], metrics["holdout_loss"]]).all())


def boundaries(cfg: TrainConfig, begin: int = 0) -> list[int]:
    """The steps at which training pauses, from `begin` to the last step.

    It pauses at evaluations and snapshots, and often enough for progress and Ctrl-C.
    """
    pauses = range(0, cfg.steps, longest_chunk(cfg))
    ends = {*evaluation_steps(cfg), *pauses, *cfg.snapshots, begin}
    return sorted(end for end in ends if end >= begin)
