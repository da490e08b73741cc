"""``python -m benchmarks.fused``: a step of a model of a population, by the fused engine and by XLA, interleaved.

Both train the tutorial's models from the same weights on the same batches, as wide as they do by default. Before
they are timed, their losses must agree.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console

from benchmarks.interleaving import Timing, interleave
from benchmarks.machine import describe_machine
from benchmarks.stopwatch import seconds
from benchmarks.tables import compared, timing_sheet
from jax_revinc import PRESETS
from jax_revinc.engines import FusedPopulation, XlaPopulation
from jax_revinc.training import draw_weights
from revinc.cli import run_command
from revinc.dataset import make_dataset, many_batches
from revinc.engine import PopulationEngine

STEPS = 50
"""Steps timed per round."""

SAME_STEPS, SAME_LOSS_BOUND = 3, 1e-3
"""Relative, on the losses of the first steps, in float32; some models soon amplify roundings, in float64 too."""


def time_steps(rounds: int) -> tuple[float, dict[str, Timing]]:
    """Seconds until the fused engine is there, and of a model-step by each engine.

    Raises:
        AssertionError: if the engines find other losses.
    """
    cfg = PRESETS["tutorial"]
    first_losses = {}

    def stepping(name: str, engine: PopulationEngine) -> Callable[[], float]:
        runs = [dataclasses.replace(cfg, init_seed=i, data_seed=i) for i in range(engine.width)]
        each = [draw_weights(run) for run in runs]
        state = engine.start(runs, {n: np.stack([w[n] for w in each]) for n in each[0]})
        batches = many_batches([make_dataset(run) for run in runs], 0, STEPS)
        state, first_losses[name] = engine.advance(state, batches)

        def step() -> float:
            nonlocal state
            begin = time.perf_counter()
            state, _ = engine.advance(state, batches)
            return (time.perf_counter() - begin) / STEPS / engine.width

        return step

    contenders: dict[str, Callable[[], float]] = {}
    built = seconds(lambda: contenders.update(fused=stepping("fused", FusedPopulation(cfg))))
    contenders["XLA"] = stepping("XLA", XlaPopulation(cfg))
    shared = min(map(len, first_losses.values()))
    fused, by_xla = (of_engine[:shared, :SAME_STEPS] for of_engine in first_losses.values())
    np.testing.assert_allclose(fused, by_xla, rtol=SAME_LOSS_BOUND)
    return built, interleave(contenders, rounds)


def fused_command(args: argparse.Namespace) -> None:
    console = Console(highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    built, timings = time_steps(args.rounds)
    sheet = timing_sheet("model-step", list(timings.values()), unit="us", scale=1e6)
    console.print(sheet.for_terminal())
    ours, *others = timings.values()
    for sentence in compared(ours, others):
        console.print(sentence)
    console.print(f"the fused engine's first {STEPS} steps, building included, took {built:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.fused", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of steps (7)")
    parser.set_defaults(command=fused_command)
    return run_command(parser)


if __name__ == "__main__":
    sys.exit(main())
