"""``python -m benchmarks.fused``: the fused engine and XLA on models of the family, interleaved.

For every model: seconds until the fused engine is there, nothing being compiled before, and a step of a model in a
population by either engine, from the same weights on the same batches, as wide as they are by default. Before they are
timed, their losses must agree.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
from rich.console import Console

from benchmarks.interleaving import Timing, interleave
from benchmarks.machine import describe_machine
from benchmarks.stopwatch import seconds
from benchmarks.tables import Sheet, number, speed_up, spread
from jax_revinc import PRESETS
from jax_revinc.engines import FusedPopulation, XlaPopulation
from jax_revinc.training import draw_weights
from revinc import TrainConfig, UserError
from revinc.cli import run_command
from revinc.dataset import make_dataset, many_batches
from revinc.engine import PopulationEngine
from revinc.errors import near_names

STEPS = 25
"""Steps timed per round."""

SAME_STEPS, SAME_LOSS_BOUND = 3, 1e-3
"""Relative, on the losses of the first steps, in float32; some models soon amplify roundings, in float64 too."""

TUTORIAL = PRESETS["tutorial"].model

MODELS = {
    "tutorial": TUTORIAL,
    "gelu": TUTORIAL.replace(act_fn="gelu"),
    "attention-only": TUTORIAL.replace(attn_only=True),
    "no-norm": TUTORIAL.replace(normalization_type=None),
    "2-heads": TUTORIAL.replace(n_heads=2),
    "4-heads": TUTORIAL.replace(n_heads=4, d_head=1),
    "d8-1-layer": TUTORIAL.replace(n_layers=1, d_model=8, d_head=4, n_heads=2, d_mlp=32),
    "d8-2-layers": TUTORIAL.replace(d_model=8, d_head=4, n_heads=2, d_mlp=32),
    "d16-1-layer": TUTORIAL.replace(n_layers=1, d_model=16, d_head=8, n_heads=2, d_mlp=64),
    "d16-2-layers": TUTORIAL.replace(d_model=16, d_head=8, n_heads=2, d_mlp=64),
}
"""By name: the tutorial's model with a part changed, and wider ones with MLPs four times as wide as the stream."""


def measure(cfg: TrainConfig, rounds: int) -> tuple[float, dict[str, Timing]]:
    """Seconds until the fused engine is there, and of a model-step by each engine.

    Raises:
        AssertionError: if the engines find other losses.
    """
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

    engines: list[PopulationEngine] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_REVINC_CACHE"] = folder
        built = seconds(lambda: engines.append(FusedPopulation(cfg)))
    contenders = {
        "fused": stepping("fused", engines[0]),
        "xla": stepping("xla", XlaPopulation(cfg)),
    }
    shared = min(map(len, first_losses.values()))
    fused, by_xla = (of_engine[:shared, :SAME_STEPS] for of_engine in first_losses.values())
    np.testing.assert_allclose(fused, by_xla, rtol=SAME_LOSS_BOUND)
    return built, interleave(contenders, rounds)


def row(name: str, built: float, timings: dict[str, Timing]) -> Iterator[str]:
    """What the table says of a model."""
    yield name
    yield number(built)
    for timing in timings.values():
        yield f"{number(1e6 * timing.median)} ({spread(timing, 1e6)})"
    yield speed_up(timings["xla"], timings["fused"])


def fused_command(args: argparse.Namespace) -> None:
    unknown = [name for name in args.models if name not in MODELS]
    if unknown:
        raise UserError(
            f"there is no model {unknown[0]!r}{near_names(unknown[0], MODELS)}: {', '.join(MODELS)}"
        )
    console = Console(highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    rows = []
    for name in args.models or MODELS:
        console.print(f"{name} ...")
        cfg = dataclasses.replace(PRESETS["tutorial"], model=MODELS[name], eval_every=STEPS)
        rows.append(tuple(row(name, *measure(cfg, args.rounds))))
    headings = ("model", "s to build", "fused, us per model-step", "XLA, the same", "times as fast")
    sheet = Sheet(f"medians (least .. most) of {args.rounds} rounds", headings, rows)
    console.print(sheet.as_markdown() if args.markdown else sheet.for_terminal())


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.fused", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)} (all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of steps (5)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.set_defaults(command=fused_command)
    return run_command(parser)


if __name__ == "__main__":
    sys.exit(main())
