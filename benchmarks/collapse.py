"""``python -m benchmarks.collapse``: what happens when a run loses what it has learned.

It trains the tutorial's model with seed 8 by the fused engine up to step 3,700, then update by
update to the end, and reads from the optimizer's state what each update did. It prints a table in
Markdown; ``--picture`` draws the last 300 updates (which needs matplotlib).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.comparison import print_machine
from benchmarks.plots import STABLE, save
from benchmarks.tables import Sheet
from jax_revinc import PRESETS
from jax_revinc.engines import make_engine
from jax_revinc.training import draw_weights
from revinc import TrainConfig
from revinc.command_errors import run_command
from revinc.dataset import make_dataset
from revinc.engine import chunk_capacity
from revinc.flag_values import path
from revinc.interrupts import run_to_exit
from revinc.number_format import percentage
from revinc.terminal import PlainConsole, PlainParser

SEED, BEGIN = 8, 3700
"""The seed that is looked at, and the step from which on each update is."""

SHOWN = (3701, 3801, 3849, 3852, 3855, 3858, 3859, 3860, 3861, 3862, 3863, 3877, 3900, 4000)
"""The updates in the table."""


class Update(NamedTuple):
    """What one update of AdamW did, norms and means over all parameters.

    Attributes:
        step: the number of the update, from 1 on.
        loss: the loss of its batch, before it.
        gradient: the norm of its gradient.
        memory: the norm of what the optimizer expects of the gradient: the square root of the second
            moments before the update, corrected for their start at 0.
        surprise: the largest ratio of a parameter's gradient to that.
        change: the norm of the change of the parameters.
        holdout_accuracy: after the update.
    """

    step: int
    loss: float
    gradient: float
    memory: float
    surprise: float
    change: float
    holdout_accuracy: float


def follow(cfg: TrainConfig, begin: int) -> Iterator[Update]:
    """Train a run by the fused engine and yield every update after step `begin`.

    Args:
        cfg: a config with the optimizer adamw.
        begin: the step, above 0, from which on the training goes update by update.
    """
    engine, data = make_engine(cfg, "fused"), make_dataset(cfg)
    state = engine.start(draw_weights(cfg))
    for start, stop in pairwise([*range(0, begin, chunk_capacity(cfg)), begin]):
        state, _ = engine.advance(state, data.rows(start, stop))
    params, first, second = numbers(state)
    for step in range(begin, cfg.steps):
        state, losses = engine.advance(state, data.rows(step, step + 1))
        new_params, new_first, new_second = numbers(state)
        # The engine does not hand out its gradient; the first moments tell it.
        gradient = (new_first - cfg.b1 * first) / (1 - cfg.b1)
        memory = np.sqrt(second / (1 - cfg.b2**step))
        yield Update(
            step + 1,
            float(losses[0]),
            norm(gradient),
            norm(memory),
            float(np.max(np.abs(gradient) / (memory + cfg.adam_eps))),
            norm(new_params - params),
            engine.evaluate(state)["holdout_accuracy"],
        )
        params, first, second = new_params, new_first, new_second


def numbers(state: Any) -> list[np.ndarray]:
    """The parameters and the first and second moments in a state of the fused engine, in float64."""
    return [np.array(array, np.float64) for array in (state.params, *state.kept)]


def norm(vector: np.ndarray) -> float:
    """The Euclidean norm of a vector."""
    return float(np.linalg.norm(vector))


def sheet(updates: list[Update]) -> Sheet:
    """A table with a row for each update."""
    heads = ("update", "loss of its batch", "norm of the gradient", "norm of √v", "largest g / √v")
    rows = [
        (
            f"{update.step:,}",
            f"{update.loss:.2g}",
            f"{update.gradient:.3g}",
            f"{update.memory:.3g}",
            f"{update.surprise:.3g}",
            f"{update.change:.2g}",
            percentage(update.holdout_accuracy, 1),
        )
        for update in updates
    ]
    return Sheet("Updates", (*heads, "norm of the change", "holdout right"), rows)


def draw(updates: list[Update], file: Path) -> None:
    """Draw loss, gradient and accuracy against the step, as a picture in a file such as an SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    steps = [update.step for update in updates]
    with mpl.rc_context(STABLE):
        figure, (left, middle, right) = pyplot.subplots(
            1, 3, figsize=(11, 3.2), layout="constrained"
        )
        left.semilogy(steps, [update.loss for update in updates])
        left.set(xlabel="step", ylabel="loss of the batch, nats")
        middle.semilogy(steps, [update.gradient for update in updates], label="gradient")
        middle.semilogy(steps, [update.memory for update in updates], label="√v before it")
        middle.set(xlabel="step", ylabel="norm over all parameters")
        middle.legend(frameon=False)
        right.plot(steps, [100 * update.holdout_accuracy for update in updates])
        right.set(xlabel="step", ylabel="holdout right, %", ylim=(0, 100))
        save(figure, file)


def make_parser() -> PlainParser:
    """Make the parser of the command."""
    parser = PlainParser(
        prog="python -m benchmarks.collapse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--picture", type=path, metavar="FILE", help="an SVG file to draw")
    parser.set_defaults(command=run)
    return parser


def run(args: argparse.Namespace) -> None:
    """Train, print the table, and draw the picture if a file for it is given."""
    console = PlainConsole()
    print_machine(console)
    updates = list(follow(PRESETS["tutorial"].with_seed(SEED), BEGIN))
    shown = sheet([update for update in updates if update.step in SHOWN])
    for line in shown.as_markdown().splitlines():
        console.print(line, soft_wrap=True)
    if args.picture:
        draw(updates, args.picture)


def main() -> int:
    """Run the command; its exit status."""
    return run_command(make_parser())


if __name__ == "__main__":
    run_to_exit(main)
