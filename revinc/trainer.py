"""Drives any engine through a run: chunks, evaluations, snapshots, checkpoints, resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from revinc.checkpoint import Checkpoint
from revinc.config import TrainConfig
from revinc.console import Reporter
from revinc.dataset import make_dataset
from revinc.engine import LONGEST_CHUNK, Engine
from revinc.errors import UserError
from revinc.run_writer import RunWriter
from revinc.runs import CHECKPOINT, Run
from revinc.schedule import draw_batches
from revinc.weights import StateDict

SECONDS_BETWEEN_CHECKPOINTS = 1.0


class Diverged(RuntimeError):
    """The loss became NaN or infinite."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after the run was left resumable."""


def run_training(
    cfg: TrainConfig,
    engine: Engine,
    draw_weights: Callable[[], StateDict],
    out: Path,
    resume: bool,
    overwrite: bool,
    reporter: Reporter,
) -> None:
    """Train `cfg` on `engine` and write the run folder `out`, from where it was left if `resume`.

    Raises:
        UserError: if `out` can't be used.
        Diverged: naming the first step whose loss is NaN or infinite; the last good state stays as
            a checkpoint and a snapshot.
        Interrupted: on Ctrl-C, with a checkpoint of the last whole chunk.
    """
    with RunWriter(out, cfg, engine.identity, draw_weights, resume, overwrite) as writer:
        reporter.header(cfg, engine)
        if Run.load(out).finished:
            reporter.say(f"{out} is finished already")
        else:
            _train(cfg, engine, writer, reporter)


def _train(cfg: TrainConfig, engine: Engine, writer: RunWriter, reporter: Reporter) -> None:
    initial = Run.load(writer.path).state_dict(step=0)
    begin = writer.load_checkpoint() or Checkpoint(0, engine.to_arrays(engine.start(initial)))
    try:
        engine.from_arrays(begin.engine_arrays)
    except KeyError as error:
        raise UserError(
            f"{writer.path / CHECKPOINT} lacks {error}; delete it to start again at step 0"
        ) from error
    point = begin
    saved_at = time.monotonic()

    def keep_if_due(point: Checkpoint) -> None:
        if point.step in (*cfg.snapshots, cfg.steps):
            writer.save_snapshot(point.step, weights_at(engine, point))

    try:
        keep_if_due(begin)  # it may have been interrupted just before it was
        with reporter.training(cfg, begin):
            for point in points(cfg, engine, begin):
                reporter.reached(point)
                keep_if_due(point)
                if time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                    writer.save_checkpoint(point)
                    saved_at = time.monotonic()
    except KeyboardInterrupt:
        writer.save_checkpoint(point)
        raise Interrupted(
            f"stopped at step {point.step}; to go on: --out {writer.path} --resume"
        ) from None
    except Diverged as error:
        writer.save_snapshot(point.step, weights_at(engine, point))
        writer.save_checkpoint(point)
        raise Diverged(
            f"{error} (lr={cfg.lr:g}); the last good weights, of step {point.step}, are among the "
            f"snapshots in {writer.path}"
        ) from None
    writer.finish(weights_at(engine, point), point.history)


def points(cfg: TrainConfig, engine: Engine, begin: Checkpoint) -> Iterator[Checkpoint]:
    """The run at the end of every chunk from `begin` on, all of them good.

    Raises:
        Diverged: instead of a point whose loss is NaN or infinite, or that was reached through one.
    """
    step, history = begin.step, begin.history
    state = engine.from_arrays(begin.engine_arrays)
    rows = make_dataset(cfg).train_rows
    if not history.evaluations:
        history = history.with_evaluation(step, evaluate(engine, state, step))
        yield Checkpoint(step, begin.engine_arrays, history)
    for start, stop in pairwise(boundaries(cfg)):
        if start < begin.step:
            continue
        batches = draw_batches(cfg.data_seed, rows, cfg.batch_size, start, stop)
        state, losses = engine.advance(state, batches)
        if not np.isfinite(losses).all():
            raise Diverged(
                f"the loss became NaN or infinite at step {start + int(np.argmin(np.isfinite(losses)))}"
            )
        if not all(np.isfinite(weight).all() for weight in engine.weights(state).values()):
            raise Diverged(f"weights became NaN or infinite by step {stop}")
        history = history.with_losses(losses)
        if stop % cfg.eval_every == 0 or stop == cfg.steps:
            history = history.with_evaluation(stop, evaluate(engine, state, stop))
        yield Checkpoint(stop, engine.to_arrays(state), history)


def evaluate(engine: Engine, state: object, step: int) -> dict[str, float]:
    """The engine's metrics, or Diverged if a loss is NaN or infinite."""
    metrics = engine.evaluate(state)
    if not np.isfinite([metrics["train_loss"], metrics["holdout_loss"]]).all():
        raise Diverged(f"the loss became NaN or infinite at step {step}")
    return metrics


def weights_at(engine: Engine, point: Checkpoint) -> StateDict:
    """The weights at a point of the run."""
    return engine.weights(engine.from_arrays(point.engine_arrays))


def boundaries(cfg: TrainConfig) -> list[int]:
    """Where chunks end, from 0 to the last step: at evaluations, at snapshots, and often enough."""
    evaluations = range(0, cfg.steps, cfg.eval_every)
    pauses = range(0, cfg.steps, LONGEST_CHUNK)
    return sorted({*evaluations, *pauses, *cfg.snapshots, cfg.steps})
