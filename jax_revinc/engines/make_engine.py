"""Make a training engine by its name, ``xla`` or ``fused``, for one model or for many at once."""

from __future__ import annotations

import jax

from jax_revinc.engines.compiled_programs import MakePrograms, make_program_key
from jax_revinc.engines.fused_engine import fused_programs
from jax_revinc.engines.many_models import JaxPopulation
from jax_revinc.engines.single_model import JaxEngine
from jax_revinc.engines.xla import xla_programs
from revinc import TrainConfig
from revinc.validation import require_choice

PROGRAMS: dict[str, MakePrograms] = {"xla": xla_programs, "fused": fused_programs}
"""What makes an engine's programs, by engine name."""


def make_engine(cfg: TrainConfig, engine_name: str = "xla") -> JaxEngine:
    """Make the training engine called `engine_name` (``xla`` or ``fused``) for one model.

    Args:
        cfg: the training config.
        engine_name: one of `PROGRAMS`.

    Raises:
        UserError: for an unknown name.
        NotFusible: if the fused engine does not support the model.
        CannotBuild: if the fused engine finds no working compiler.
    """
    require_choice("engine_name", engine_name, tuple(PROGRAMS))
    return JaxEngine(cfg, PROGRAMS[engine_name](make_program_key(cfg), many=False))


def make_population_engine(
    cfg: TrainConfig,
    engine_name: str = "xla",
    width: int | None = None,
    device: jax.Device | None = None,
) -> JaxPopulation:
    """Make the engine called `engine_name` (``xla`` or ``fused``) to train many models at once.

    Args:
        cfg: the training config; the runs may differ from it in hyperparameters, split and seeds.
        engine_name: one of `PROGRAMS`.
        width: models side by side; by default what suits the engine and the device.
        device: by default the first of this process.

    Raises:
        UserError: for an unknown name, or a width below 1.
        NotFusible: if the fused engine does not support the model.
        CannotBuild: if the fused engine finds no working compiler.
    """
    require_choice("engine_name", engine_name, tuple(PROGRAMS))
    programs = PROGRAMS[engine_name](make_program_key(cfg), many=True)
    return JaxPopulation(cfg, programs, width, device)
