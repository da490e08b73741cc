"""The choice of the engine, ``xla`` or ``fused``, that trains a model, and the reason for it."""

from __future__ import annotations

import argparse
from typing import NamedTuple

import jax

from jax_revinc.engines.compiled_programs import Programs, make_program_key
from jax_revinc.engines.fused.errors import CannotBuild, NotFusible
from jax_revinc.engines.fused_engine import fused_programs
from jax_revinc.engines.make_engine import PROGRAMS
from jax_revinc.engines.xla import xla_programs
from revinc import TrainConfig, UserError
from revinc.validation import require_choice
from revinc.weights import parameter_count

CHOICES = ("auto", *PROGRAMS)
"""What a user may ask for."""

SECONDS_PER_XLA_UPDATE = 1e-4
"""Rough seconds of an update of a small model by XLA; a larger model takes more."""

SECONDS_TO_BUILD, SECONDS_PER_OPERATION = 5.0, 0.5e-3
"""Rough seconds to build a fused program: in any case, and for each scalar operation."""

USES = 30
"""Runs over which the cost of building a program is spread: programs are kept on disk."""


def add_engine_flag(group: argparse._ActionsContainer) -> None:
    """Add to a command's parser the flag ``--engine``, the choice of the engine that trains."""
    group.add_argument(
        "--engine",
        choices=CHOICES,
        default="auto",
        help="xla, or fused: one compiled program for the CPU, many times as fast; auto (default) "
        "takes the engine of a resumed run, else fused if it supports the model and building the "
        "program is worth it",
    )


class Choice(NamedTuple):
    """The engine chosen for a training: its name, its compiled programs, and the reason.

    Attributes:
        engine_name: ``xla`` or ``fused``.
        programs: the engine's programs, already built.
        sentence: which engine it is, and why, for a person to read.
    """

    engine_name: str
    programs: Programs
    sentence: str


def choose_engine(
    asked: str, cfg: TrainConfig, n_models: int | None = None, resumed: str | None = None
) -> Choice:
    """Choose the engine that trains one model, or many side by side, and build its programs.

    Args:
        asked: one of `CHOICES`; ``auto`` keeps the engine of a resumed run, or else takes the fused
            engine where it supports the model and building its program is worth it.
        cfg: the training config.
        n_models: the number of models trained side by side; None for a single run.
        resumed: the engine name of the run that is resumed; None for a new run.

    Raises:
        UserError: if `asked` is unknown, or if the fused engine is asked for, or trained the run so
            far, and can't train the model here.
    """
    require_choice("engine", asked, CHOICES)
    engine_name = resumed if asked == "auto" and resumed else asked
    many = n_models is not None
    key = make_program_key(cfg)

    def xla(why: str = "") -> Choice:
        return Choice("xla", xla_programs(key, many=many), f"Engine: xla{why}.")

    if engine_name == "xla":
        return xla()
    if engine_name == "auto" and (why := why_not_worth_it(cfg, cfg.steps * (n_models or 1))):
        return xla(f", because {why}")
    try:
        programs = fused_programs(key, many=many)
    except (NotFusible, CannotBuild) as error:
        if engine_name == "auto":
            return xla(f", because the fused engine can't train this model: {error}")
        raise UserError(
            f"the fused engine can't train this model (a new run can use --engine xla): {error}"
        ) from error
    lanes, compiler = programs.identity["lanes"], programs.identity["compiler"]
    return Choice("fused", programs, f"Engine: fused, {lanes} lanes, compiled by {compiler}.")


def why_not_worth_it(cfg: TrainConfig, n_updates: int) -> str | None:
    """Say why compiling a C++ program is not worth it for `n_updates` updates, or None if it is."""
    if jax.default_backend() != "cpu":
        return f"JAX runs on {jax.default_backend()}, but fused programs run only on the CPU"
    by_xla = SECONDS_PER_XLA_UPDATE * n_updates
    building = SECONDS_TO_BUILD + SECONDS_PER_OPERATION * estimated_operations(cfg)
    if building <= USES * by_xla:
        return None
    return (
        f"these {n_updates:,} updates take about {by_xla:.1g} s, and building a fused program "
        f"would take about {building:.0f} s (--engine fused does it)"
    )


def estimated_operations(cfg: TrainConfig) -> int:
    """Estimate the scalar operations in the gradient of one example: 3 per parameter and token."""
    return 3 * cfg.model.n_ctx * parameter_count(cfg.model)
