"""Our model's answers, where the fused engine has any: losses, and gradients by the parameters."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from jax_revinc import numerics
from jax_revinc.engines.fused.gradient import fused_value_and_grad
from jax_revinc.engines.fused.outputs import fused_outputs
from jax_revinc.engines.xla import ValueAndGrad
from jax_revinc.objective import mean_loss
from parity.jax_side import JaxSide, Params
from parity.question import Tensors
from revinc import HookedTransformerConfig
from revinc.objective import Objective


class FusedSide(JaxSide):
    """`JaxSide`, whose losses and gradients by the parameters the fused engine computes; the rest is XLA's.

    Raises:
        NotFusible: in its methods, if the model can't be fused.
        CannotBuild: in its methods, if nothing can be compiled.
    """

    def forward(self) -> Tensors:
        """See `JaxSide.forward`."""
        tokens = self.question.tokens

        def of_sequence(params: Params, sequence: Int[Array, " seq"]) -> Float[Array, " n_counted"]:
            return self._losses_of(params, sequence[None])[0]

        with numerics(self.cfg):
            flat, _ = ravel_pytree(self.params)
            of_each = fused_outputs(of_sequence, self.params, tokens.shape[1], self._n_tokens)
            losses = np.asarray(jax.jit(of_each)(flat, tokens))
        return super().forward() | {"losses": losses}

    def gradients(self) -> Tensors:
        """See `JaxSide.gradients`."""

        def loss(params: Params, sequences: Int[Array, "batch seq"]) -> Float[Array, ""]:
            return self._losses_of(params, sequences).mean()

        with numerics(self.cfg):
            value_and_grad = fused_value_and_grad(loss, self._n_tokens, fallback=False)
            _, by_parameter = jax.jit(value_and_grad)(self.params, self.question.tokens)
        return super().gradients() | {name: np.asarray(g) for name, g in by_parameter.items()}

    @property
    def _n_tokens(self) -> int:
        return int(self.question.tokens.max()) + 1

    def _losses_of(
        self, params: Params, sequences: Int[Array, "batch seq"]
    ) -> Float[Array, "batch n_counted"]:
        return self._losses(self._model(params)(sequences[:, :-1]), jnp.asarray(sequences))


@functools.cache
def gradient_by_fusing(cfg: HookedTransformerConfig, objective: Objective) -> ValueAndGrad:
    """The training loss and its gradient as the fused engine computes them; where that can't be, an error."""
    return fused_value_and_grad(
        lambda params, batch: mean_loss(cfg, params, batch, objective), cfg.d_vocab, fallback=False
    )
