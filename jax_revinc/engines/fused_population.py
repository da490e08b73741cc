"""Many runs side by side, their losses and gradients by the fused engine."""

from __future__ import annotations

import functools

import jax
import numpy as np

from jax_revinc.engines.fused.compiler import CannotBuild, find_compiler
from jax_revinc.engines.fused.cpu import lane_width
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.gradient import fused_value_and_grad
from jax_revinc.engines.xla import ValueAndGrad
from jax_revinc.engines.xla_population import XlaPopulation
from jax_revinc.numerics import numerics
from jax_revinc.objective import mean_loss
from revinc import HookedTransformerConfig, TrainConfig, UserError
from revinc.objective import Objective
from revinc.weights import parameter_shapes

FUSED_WIDTH = 512
"""Models side by side by default: enough that what XLA does in between costs each little."""


@functools.cache
def gradient_by_fusing(cfg: HookedTransformerConfig, objective: Objective) -> ValueAndGrad:
    """The loss and its gradient as one compiled program; where that can't be, an error."""
    return fused_value_and_grad(
        lambda params, batch: mean_loss(cfg, params, batch, objective), cfg.d_vocab, fallback=False
    )


class FusedPopulation(XlaPopulation):
    """`XlaPopulation`, but for losses and gradients: those a fused program computes, a model in every lane.

    The optimizer is optax' still, and with it all else that XLA runs between two gradients.

    Args:
        cfg: the recipe, from which the runs may differ in rates, split and seeds.
        width: models side by side; `FUSED_WIDTH` by default.
        device: the first of this process by default.

    Raises:
        UserError: for a width below 1, and where the model can't be fused or nothing can be compiled.
    """

    def __init__(
        self, cfg: TrainConfig, width: int | None = None, device: jax.Device | None = None
    ) -> None:
        super().__init__(cfg, FUSED_WIDTH if width is None else width, device)
        self._gradient = gradient_by_fusing
        params = {
            name: jax.ShapeDtypeStruct(shape, cfg.model.dtype)
            for name, shape in parameter_shapes(cfg.model).items()
        }
        batch = jax.ShapeDtypeStruct((cfg.batch_size, self._data.tokens.shape[-1]), np.int32)
        try:
            with numerics(cfg.model):
                jax.eval_shape(gradient_by_fusing(cfg.model, self._objective), params, batch)
        except (NotFusible, CannotBuild) as why:
            raise UserError(f"the fused engine can't train this model: {why}") from why
        lanes = lane_width(cfg.model.dtype)
        compiler = {"lanes": str(lanes), "compiler": str(find_compiler())}
        self.identity = {**self.identity, "name": "fused", **compiler}
        self.device = f"{self.device}, {lanes} models in a vector"
