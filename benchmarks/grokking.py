"""``python -m benchmarks.grokking``: a step of the grokking preset, ours and TransformerLens', interleaved.

Both train the one-layer model of modular addition on all 3,831 examples of the training split at once, from the same
weights. Before they are timed, their losses must agree.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console

from benchmarks.interleaving import Timing, interleave
from benchmarks.machine import describe_machine
from benchmarks.stopwatch import seconds, with_threads
from benchmarks.tables import compared, timing_sheet
from jax_revinc import PRESETS
from jax_revinc.engines import XlaEngine
from jax_revinc.training import draw_weights
from revinc.cli import run_command
from revinc.dataset import make_dataset
from revinc.engine import Engine
from torch_reference import TorchEngine

STEPS = 5
"""Steps timed per round."""

SAME_LOSS_BOUND = 1e-4
"""Relative, on the losses of the first steps, in float32."""


def time_steps(rounds: int) -> tuple[float, dict[str, Timing]]:
    """Seconds of our first steps, compilation included, and of a step, interleaved.

    Raises:
        AssertionError: if the two sides find other losses.
    """
    cfg = PRESETS["grokking"]
    weights = draw_weights(cfg)
    batches = make_dataset(cfg).batches(0, STEPS)
    first_losses = {}

    def stepping(name: str, engine: Engine) -> Callable[[], float]:
        state = engine.start(weights)
        state, first_losses[name] = engine.advance(state, batches)

        def step() -> float:
            nonlocal state
            begin = time.perf_counter()
            state, _ = engine.advance(state, batches)
            return (time.perf_counter() - begin) / STEPS

        return step

    contenders: dict[str, Callable[[], float]] = {}
    first = seconds(lambda: contenders.update(JAX=stepping("JAX", XlaEngine(cfg))))
    for threads in sorted({1, torch.get_num_threads()}, reverse=True):
        name = f"TransformerLens 3.9, torch threads: {threads}"
        contenders[name] = with_threads(threads, stepping(name, TorchEngine(cfg)))
    for name, losses in first_losses.items():
        np.testing.assert_allclose(losses, first_losses["JAX"], rtol=SAME_LOSS_BOUND, err_msg=name)
    return first, interleave(contenders, rounds)


def grokking_command(args: argparse.Namespace) -> None:
    console = Console(highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    first, timings = time_steps(args.rounds)
    console.print(timing_sheet("step", list(timings.values()), unit="ms", scale=1e3).for_terminal())
    ours, *others = timings.values()
    for sentence in compared(ours, others):
        console.print(sentence)
    console.print(f"the first {STEPS} steps of JAX, compilation included, took {first:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.grokking", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of steps (7)")
    parser.set_defaults(command=grokking_command)
    return run_command(parser)


if __name__ == "__main__":
    sys.exit(main())
