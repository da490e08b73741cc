"""``python -m benchmarks.fused``: the fused engine and XLA on models of the family.

For every model: the seconds to build the fused engine with nothing compiled before, and a step of
a model in a population of the default width by either engine, in turn. Both start from the same
weights and see the same batches. Before they are timed, their losses must agree.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Iterator

import numpy as np

from benchmarks.comparison import make_parser, print_machine
from benchmarks.interleaving import Timing, interleave
from benchmarks.stopwatch import Stepper, seconds
from benchmarks.tables import Sheet, number, speed_up, spread
from jax_revinc import PRESETS
from jax_revinc.engines import make_population_engine
from jax_revinc.training import draw_weights
from revinc import TrainConfig, UserError
from revinc.command_errors import run_command
from revinc.dataset import make_dataset, rows_of_runs
from revinc.engine import PopulationEngine
from revinc.errors import near_names, shown
from revinc.interrupts import run_to_exit
from revinc.terminal import PlainConsole

STEPS = 25
"""Steps timed per round."""

SAME_STEPS, SAME_LOSS_BOUND = 3, 1e-3
"""Relative, on the losses of the first steps, in float32. Some models soon amplify roundings."""

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
"""The tutorial's model with a part changed, and wider ones, whose MLPs are four times d_model."""


def measure(cfg: TrainConfig, rounds: int) -> tuple[float, dict[str, Timing]]:
    """Seconds to build the fused engine, and of a model-step by each engine.

    Raises:
        AssertionError: if the losses of the engines differ.
    """

    def start(engine: PopulationEngine) -> Stepper:
        runs = [dataclasses.replace(cfg, init_seed=i, data_seed=i) for i in range(engine.width)]
        each = [draw_weights(run) for run in runs]
        data = [make_dataset(run) for run in runs]
        state = engine.start(data, {n: np.stack([w[n] for w in each]) for n in each[0]})
        return Stepper(engine, state, rows_of_runs(data, 0, STEPS), STEPS, engine.width)

    engines: list[PopulationEngine] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_REVINC_CACHE"] = folder
        built = seconds(lambda: engines.append(make_population_engine(cfg, "fused")))
    steppers = {"fused": start(engines[0]), "xla": start(make_population_engine(cfg, "xla"))}
    fused, by_xla = (stepper.first_losses for stepper in steppers.values())
    shared = min(len(fused), len(by_xla))
    np.testing.assert_allclose(
        fused[:shared, :SAME_STEPS], by_xla[:shared, :SAME_STEPS], rtol=SAME_LOSS_BOUND
    )
    return built, interleave(steppers, rounds)


def row(name: str, built: float, timings: dict[str, Timing]) -> Iterator[str]:
    """The cells of a model in the table."""
    yield name
    yield number(built)
    for timing in timings.values():
        yield f"{number(1e6 * timing.median)} ({spread(timing, 1e6)})"
    yield speed_up(timings["xla"], timings["fused"])


def fused_command(args: argparse.Namespace) -> None:
    unknown = [name for name in args.models if name not in MODELS]
    if unknown:
        raise UserError(
            f"there is no model {shown(unknown[0])}{near_names(unknown[0], MODELS)}: "
            f"{', '.join(MODELS)}"
        )
    console = PlainConsole()
    print_machine(console)
    rows = []
    for name in args.models or MODELS:
        console.print(f"{name} ...")
        cfg = dataclasses.replace(PRESETS["tutorial"], model=MODELS[name], eval_every=STEPS)
        rows.append(tuple(row(name, *measure(cfg, args.rounds))))
    headings = ("model", "s to build", "fused, us per model-step", "XLA, the same", "times as fast")
    sheet = Sheet(f"medians (least .. most) of {args.rounds} rounds", headings, rows)
    for part in sheet.as_markdown().splitlines() if args.markdown else [sheet.for_terminal()]:
        console.print(part, soft_wrap=args.markdown)


def main() -> int:
    parser = make_parser("benchmarks.fused", __doc__, rounds=5)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)} (all)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.set_defaults(command=fused_command)
    return run_command(parser)


if __name__ == "__main__":
    run_to_exit(main)
