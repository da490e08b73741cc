"""Which engine runs a recipe, and why."""

from __future__ import annotations

import argparse
from typing import NamedTuple

import jax

from jax_revinc.engines.fused.compiler import CannotBuild
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused_programs import fused_programs
from jax_revinc.engines.programs import make_recipe
from revinc import TrainConfig, UserError
from revinc.dataset import make_dataset
from revinc.validation import require_choice
from revinc.weights import parameter_count

CHOICES = ("auto", "xla", "fused")
"""What may be asked for."""

SECONDS_OF_XLA = 1e-4
"""That XLA takes for an update of a small model, roughly: more if the model is not that small."""

SECONDS_TO_BUILD, SECONDS_PER_OPERATION = 5.0, 0.5e-3
"""That a fused program takes until it is there, roughly, and for every scalar operation."""

USES = 30
"""How many such runs a program is taken to serve, for it is kept."""


def add_engine_flag(group: argparse._ActionsContainer) -> None:
    """The flag ``--engine``."""
    group.add_argument(
        "--engine",
        choices=CHOICES,
        default="auto",
        help="what runs it: xla, or on a CPU fused, one compiled program, many times as fast (default: auto: as before if "
        "this is resumed, else fused if the model can be and building the program, once, pays)",
    )


class Choice(NamedTuple):
    """The name of an engine, and what to say of it."""

    name: str
    sentence: str


def choose_engine(
    asked: str, cfg: TrainConfig, n_models: int | None = None, resumed: str | None = None
) -> Choice:
    """The engine for a run, or for `n_models` side by side. If it is the fused one, its programs are built now.

    Args:
        asked: one of `CHOICES`; ``auto`` takes what trained the run so far, or else the fused engine where it can train
            the model and building it pays.
        cfg: the recipe.
        n_models: how many models are trained, if many are.
        resumed: the engine of the run that is resumed, if one is.

    Raises:
        UserError: if the fused engine is asked for, or trained the run so far, and can't train the model here.
    """
    require_choice("engine", asked, CHOICES)
    name = resumed if asked == "auto" and resumed else asked
    if name == "auto":
        why = why_not_worth_it(cfg, cfg.steps * (n_models or 1))
        if why:
            return Choice("xla", f"Engine: xla, for {why}.")
    if name == "xla":
        return Choice("xla", "Engine: xla.")
    try:
        programs = fused_programs(make_recipe(cfg, make_dataset(cfg)), n_models is not None)
    except (NotFusible, CannotBuild) as why_not:
        if name == "auto":
            return Choice("xla", f"Engine: xla, for the fused engine can't train this: {why_not}.")
        raise UserError(f"the fused engine can't train this: {why_not}") from why_not
    lanes, compiler = programs.identity["lanes"], programs.identity["compiler"]
    return Choice("fused", f"Engine: fused, {lanes} lanes, compiled by {compiler}.")


def why_not_worth_it(cfg: TrainConfig, n_updates: int) -> str | None:
    """Why a fused program is not to be built for so many updates, if it is not."""
    if jax.default_backend() != "cpu":
        return f"JAX runs on {jax.default_backend()}, and fused programs on the CPU"
    by_xla = SECONDS_OF_XLA * n_updates
    building = SECONDS_TO_BUILD + SECONDS_PER_OPERATION * estimated_operations(cfg)
    if building <= USES * by_xla:
        return None
    return (
        f"these {n_updates:,} updates take about {by_xla:.1g} s, and building a fused program would take "
        f"about {building:.0f} s (--engine fused does it)"
    )


def estimated_operations(cfg: TrainConfig) -> int:
    """About how many scalar operations an example's loss and gradient are: three per parameter and token."""
    return 3 * cfg.model.n_ctx * parameter_count(cfg.model)
