"""One training step: inside our compiled loop, and in TransformerLens' own."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.interleaving import Timing, interleave
from jax_revinc.engines import XlaEngine
from jax_revinc.training import draw_weights
from revinc import TrainConfig
from revinc.dataset import make_dataset
from revinc.engine import Engine
from revinc.schedule import draw_batches
from torch_reference import TorchEngine

JAX_STEPS, TORCH_STEPS = 2000, 50
"""Steps timed per round: enough of each to drown the clock."""

SAME_TRAINING_STEPS = 20
SAME_TRAINING_BOUND = 1e-3
"""Before they are timed, both losses must agree over this many steps, relatively, in float32."""


def time_steps(rounds: int) -> dict[str, Timing]:
    """Seconds per step of the tutorial's training, interleaved.

    Raises:
        AssertionError: if the two are not the same training.
    """
    cfg = TrainConfig(eval_every=1000)
    ours, theirs = XlaEngine(cfg), TorchEngine(cfg)
    np.testing.assert_allclose(
        losses_of(ours, cfg), losses_of(theirs, cfg), rtol=SAME_TRAINING_BOUND
    )

    contenders = {"JAX, compiled loop": stepper(ours, cfg, JAX_STEPS)}
    for threads in sorted({1, torch.get_num_threads()}, reverse=True):
        run = stepper(theirs, cfg, TORCH_STEPS)
        contenders[f"TransformerLens 3.9, torch threads: {threads}"] = with_threads(threads, run)
    for seconds_per_step in contenders.values():
        seconds_per_step()  # compiles, warms up
    return interleave(contenders, rounds)


def with_threads(threads: int, run: Callable[[], float]) -> Callable[[], float]:
    """`run` on that many torch threads: on arrays this small more are not always better."""

    def run_with_threads() -> float:
        torch.set_num_threads(threads)
        return run()

    return run_with_threads


def losses_of(engine: Engine, cfg: TrainConfig) -> np.ndarray:
    """The batch losses of the first steps, from the same initial weights."""
    _, losses = engine.advance(
        engine.start(draw_weights(cfg)), batches_of(cfg, SAME_TRAINING_STEPS)
    )
    return losses


def stepper(engine: Engine, cfg: TrainConfig, n_steps: int) -> Callable[[], float]:
    """A function that trains on by `n_steps` and returns the seconds per step."""
    batches = batches_of(cfg, n_steps)
    state = engine.start(draw_weights(cfg))

    def seconds_per_step() -> float:
        nonlocal state
        begin = time.perf_counter()
        for first in range(0, n_steps, cfg.eval_every):
            state, _ = engine.advance(state, batches[first : first + cfg.eval_every])
        return (time.perf_counter() - begin) / n_steps

    return seconds_per_step


def batches_of(cfg: TrainConfig, n_steps: int) -> np.ndarray:
    """The first batches of the run's schedule."""
    rows = make_dataset(cfg).train_rows
    return draw_batches(cfg.data_seed, rows, cfg.batch_size, 0, n_steps)
