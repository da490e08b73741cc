"""The choice of the engine, ``xla`` or ``fused``, that trains a model, and the reason for it."""

from __future__ import annotations

import argparse
from typing import NamedTuple

import jax

from jax_revinc.engines.compiled_programs import ProgramKey, Programs, make_program_key
from jax_revinc.engines.fused.errors import CannotBuild, NotFusible
from jax_revinc.engines.fused_engine import fused_programs, is_built
from jax_revinc.engines.make_engine import PROGRAMS
from jax_revinc.engines.xla import xla_programs
from revinc import TrainConfig, UserError
from revinc.validation import require_choice
from revinc.weights import parameter_count

CHOICES = ("auto", *PROGRAMS)
"""What a user may ask for."""

SECONDS_PER_UPDATE = {"one": 2.5e-4, "many": 1e-4}
"""Rough seconds by XLA on one core for an update of a small model, trained alone or among many."""

SECONDS_PER_OPERATION = 0.8e-9
"""Rough seconds by which a scalar operation lengthens an update by XLA."""

SECONDS_TO_BUILD, SECONDS_TO_BUILD_AN_OPERATION = 5.0, 0.5e-3
"""Rough seconds to build a fused program: in any case, and for each scalar operation."""


def add_engine_flag(group: argparse._ActionsContainer) -> None:
    """Add to a command's parser the flag ``--engine``, the choice of the engine that trains."""
    group.add_argument(
        "--engine",
        choices=CHOICES,
        default="auto",
        help="xla, or fused: one compiled program for the CPU, many times as fast; auto (default) "
        "takes the engine of a resumed run, else fused if its program is built already or if this "
        "training gains more time than building it takes",
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
            engine if it supports the model, and if its program is built already or this training
            gains more time than building takes.
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
    if engine_name == "auto" and (why := why_later(cfg, key, n_models)):
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


def why_later(cfg: TrainConfig, key: ProgramKey, n_models: int | None) -> str | None:
    """Say why a first result would come later by the fused engine; None if it comes sooner.

    Args:
        cfg: the training config.
        key: everything that is compiled into its programs.
        n_models: the number of models trained side by side; None for a single run.
    """
    if jax.default_backend() != "cpu":
        return f"JAX runs on {jax.default_backend()}, but fused programs run only on the CPU"
    # Processes of one job must choose alike, though a program may be built on some machines only.
    if jax.process_count() == 1 and is_built(key, many=n_models is not None):
        return None
    by_xla = seconds_by_xla(cfg, n_models)
    building = SECONDS_TO_BUILD + SECONDS_TO_BUILD_AN_OPERATION * estimated_operations(cfg)
    if building < by_xla:
        return None
    return (
        f"it trains this in about {rough_time(by_xla)}, and building the fused program, which is "
        f"faster, would take about {rough_time(building)} once (jax-revinc build does it ahead)"
    )


def seconds_by_xla(cfg: TrainConfig, n_models: int | None) -> float:
    """Estimate the seconds in which XLA trains one model (None) or many on all devices."""
    count = "one" if n_models is None else "many"
    per_update = SECONDS_PER_UPDATE[count] + SECONDS_PER_OPERATION * estimated_operations(cfg)
    n_devices = 1 if n_models is None else jax.device_count()
    return cfg.steps * (n_models or 1) * per_update / n_devices


def rough_time(seconds: float) -> str:
    """A rough time in words, such as "3 s" or "5 min"."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"


def estimated_operations(cfg: TrainConfig) -> int:
    """Estimate the scalar operations in the gradient of one example: 3 per parameter and token."""
    return 3 * cfg.model.n_ctx * parameter_count(cfg.model)
