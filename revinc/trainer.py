"""Drives any engine through a run: chunks, evaluations, snapshots, checkpoints, resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from revinc.checkpoint import Checkpoint, History
from revinc.config import TrainConfig
from revinc.console import Reporter
from revinc.dataset import make_dataset
from revinc.engine import Engine, evaluation_steps, longest_chunk
from revinc.errors import UserError
from revinc.run_writer import RunWriter
from revinc.runs import CHECKPOINT, Run
from revinc.tracking import Sink, find_sink, tracking
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
    init: StateDict | None,
    resume: bool,
    overwrite: bool,
    reporter: Reporter,
    log: Sequence[str] = (),
) -> None:
    """Train `cfg` on `engine` and write the run folder `out`, from where it was left if `resume`.

    Raises:
        UserError: if `out` or `log` can't be used, or `init` does not fit the config.
        Diverged: naming the first step whose loss is NaN or infinite; the last good state stays as
            a checkpoint and a snapshot.
        Interrupted: on Ctrl-C, with a checkpoint of the last whole chunk.
    """
    sinks = [find_sink(name) for name in dict.fromkeys(log)]
    with RunWriter(out, cfg, engine.identity, draw_weights, init, resume, overwrite) as writer:
        reporter.header(cfg, engine)
        if resume and not writer.resumed:
            reporter.say(f"nothing to resume in {out}: starting at step 0")
        run = Run.load(out)
        if run.finished:
            reporter.say(f"{out} is finished already")
        else:
            _train(run, engine, writer, reporter, sinks)


def _train(
    run: Run, engine: Engine, writer: RunWriter, reporter: Reporter, sinks: Sequence[Sink]
) -> None:
    cfg = run.config
    saved_at = time.monotonic()
    point = None

    def keep_if_due(point: Checkpoint) -> None:
        if point.step in (*cfg.snapshots, cfg.steps):
            writer.save_snapshot(point.step, weights_at(engine, point))

    try:
        initial = run.state_dict(step=0)
        point = writer.load_checkpoint() or Checkpoint(0, engine.to_arrays(engine.start(initial)))
        keep_if_due(point)  # it may have been interrupted just before it was
        with reporter.training(cfg, point), tracking(sinks, run, point) as track:
            for reached in points(cfg, engine, point):
                track(reached)  # first: what a checkpoint holds is never logged again
                point = reached
                reporter.reached(point)
                keep_if_due(point)
                if time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                    writer.save_checkpoint(point)
                    saved_at = time.monotonic()
    except KeyboardInterrupt:
        if point is not None:
            writer.save_checkpoint(point)
        raise Interrupted(
            f"stopped at step {point.step if point else 0}; to go on: --out {writer.path} --resume"
        ) from None
    except Diverged as error:
        assert point is not None
        writer.save_snapshot(point.step, weights_at(engine, point))
        writer.save_checkpoint(point)
        raise Diverged(
            f"{error} (lr={cfg.lr:g}); the last good weights, of step {point.step}, are among the "
            f"snapshots in {writer.path}"
        ) from None
    writer.finish(weights_at(engine, point), point.history)


def points(cfg: TrainConfig, engine: Engine, begin: Checkpoint) -> Iterator[Checkpoint]:
    """The run at the end of every chunk from `begin` on, and last before it diverges: all good.

    Raises:
        UserError: if `begin` is not of this engine.
        Diverged: after the last good point, if a loss or weight becomes NaN or infinite.
    """
    data = make_dataset(cfg)
    evaluated = set(evaluation_steps(cfg))
    point = begin
    try:
        state = engine.from_arrays(begin.engine_arrays)
    except KeyError as error:
        raise UserError(
            f"{CHECKPOINT} lacks {error}; delete it to start again at step 0"
        ) from error
    if not point.history.evaluations:
        metrics = engine.evaluate(state)
        if not is_finite(metrics):
            raise Diverged(f"the loss became NaN or infinite at step {begin.step}")
        point = replace(begin, history=begin.history.with_evaluation(begin.step, metrics))
        yield point
    for start, stop in pairwise(boundaries(cfg, begin.step)):
        batches = data.batches(start, stop)
        state, losses = engine.advance(state, batches)
        history = point.history.with_losses(losses)
        if stop in evaluated:
            history = history.with_evaluation(stop, engine.evaluate(state))
        n_good = good_updates(engine, state, losses, history, stop)
        if n_good < len(batches):
            yield from replay(engine, point, batches[: max(n_good - 1, 0)])
            raise Diverged(f"the loss became NaN or infinite at step {start + n_good}")
        point = Checkpoint(stop, engine.to_arrays(state), history)
        yield point


def good_updates(
    engine: Engine, state: object, losses: np.ndarray, history: History, stop: int
) -> int:
    """How many of a chunk's batches had a finite loss; one fewer if what came of the last is broken."""
    if not np.isfinite(losses).all():
        return int(np.argmin(np.isfinite(losses)))
    evaluation = history.evaluations[-1]
    whole = all(np.isfinite(weight).all() for weight in engine.weights(state).values())
    whole = whole and (evaluation["step"] != stop or is_finite(evaluation))
    return len(losses) if whole else len(losses) - 1


def replay(engine: Engine, begin: Checkpoint, batches: np.ndarray) -> Iterator[Checkpoint]:
    """The point that `batches` lead to from `begin`, if there are any."""
    if len(batches):
        state, losses = engine.advance(engine.from_arrays(begin.engine_arrays), batches)
        history = begin.history.with_losses(losses)
        yield Checkpoint(begin.step + len(batches), engine.to_arrays(state), history)


def is_finite(metrics: dict[str, float]) -> bool:
    """Whether both losses of an evaluation are finite."""
    return bool(np.isfinite([metrics["train_loss"], metrics["holdout_loss"]]).all())


def weights_at(engine: Engine, point: Checkpoint) -> StateDict:
    """The weights at a point of the run."""
    return engine.weights(engine.from_arrays(point.engine_arrays))


def boundaries(cfg: TrainConfig, begin: int = 0) -> list[int]:
    """Where chunks end, from `begin` to the last step: at evaluations, snapshots, and often enough."""
    pauses = range(0, cfg.steps, longest_chunk(cfg))
    ends = {*evaluation_steps(cfg), *pauses, *cfg.snapshots, begin}
    return sorted(end for end in ends if end >= begin)
