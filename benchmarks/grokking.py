"""``python -m benchmarks.grokking``: a step of the grokking preset in JAX and in TransformerLens.

Both train the one-layer model of modular addition on all 3,831 examples of the training split at
once, from the same weights. Before they are timed, in turn, their losses must agree.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.comparison import Comparison
from benchmarks.interleaving import Timing, interleave
from benchmarks.stopwatch import Stepper, seconds, with_threads
from jax_revinc import PRESETS
from jax_revinc.engines import make_engine
from jax_revinc.training import draw_weights
from revinc.dataset import make_dataset
from revinc.engine import Engine
from revinc.interrupts import run_to_exit
from torch_reference import TorchEngine

STEPS = 5
"""Steps timed per round."""

SAME_LOSS_BOUND = 1e-4
"""Relative, on the losses of the first steps, in float32."""


def time_steps(rounds: int) -> tuple[float, dict[str, Timing]]:
    """Seconds of the first steps in JAX, compilation included, and of a step by program.

    Raises:
        AssertionError: if the losses differ.
    """
    cfg = PRESETS["grokking"]
    weights = draw_weights(cfg)
    rows = make_dataset(cfg).rows(0, STEPS)
    steppers: dict[str, Stepper] = {}

    def start(name: str, engine: Engine) -> None:
        steppers[name] = Stepper(engine, engine.start(weights), rows, STEPS)

    first = seconds(lambda: start("JAX", make_engine(cfg)))
    programs: dict[str, Callable[[], float]] = {**steppers}
    for threads in sorted({1, torch.get_num_threads()}, reverse=True):
        name = f"TransformerLens 3.9, torch threads: {threads}"
        start(name, TorchEngine(cfg))
        programs[name] = with_threads(threads, steppers[name])
    for name, stepper in steppers.items():
        np.testing.assert_allclose(
            stepper.first_losses, steppers["JAX"].first_losses, rtol=SAME_LOSS_BOUND, err_msg=name
        )
    return first, interleave(programs, rounds)


COMPARISON = Comparison(
    "benchmarks.grokking", __doc__, time_steps, "step", f"the first {STEPS} steps of JAX"
)

if __name__ == "__main__":
    run_to_exit(COMPARISON.main)
