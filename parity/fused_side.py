"""The JAX side of the parity check with the fused engine, which compiles the model to C++."""

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
from jax_revinc.engines.fused.spec import Spec
from jax_revinc.engines.fused.vmap import fused_outputs
from jax_revinc.engines.xla import ValueAndGrad
from jax_revinc.objective import mean_loss
from parity.inputs import UNLIKELY_LOSSES, Tensors
from parity.jax_side import JaxSide, Params
from revinc import HookedTransformerConfig
from revinc.objective import Objective


class FusedSide(JaxSide):
    """The JAX side of the parity check, with losses and parameter gradients by the fused engine.

    Raises:
        NotFusible: in its methods, if the model can't be fused.
        CannotBuild: in its methods, if nothing can be compiled.
    """

    def forward(self) -> Tensors:
        """Compute every activation and the logits by XLA, and the losses by the fused engine."""

        def of_example(params: Params, example: Int[Array, " ids"]) -> Float[Array, " n_losses"]:
            return jnp.concatenate(self._losses_of(params, example[None]), axis=1)[0]

        with numerics(self.cfg):
            flat, _ = ravel_pytree(self.params)
            length = self._examples.shape[1]
            of_each = fused_outputs(of_example, Spec(self.params, length, self._n_tokens))
            found = np.asarray(jax.jit(of_each)(flat, self._examples))
        losses, unlikely = np.split(found, 2, axis=1)
        return super().forward() | {"losses": losses, UNLIKELY_LOSSES: unlikely}

    def gradients(self) -> Tensors:
        """Compute the gradients of activations by XLA, and of parameters by the fused engine."""

        def loss(params: Params, examples: Int[Array, "batch ids"]) -> Float[Array, ""]:
            _, unlikely = self._losses_of(params, examples)
            return unlikely.mean()

        with numerics(self.cfg):
            value_and_grad = fused_value_and_grad(loss, self._n_tokens, fallback=False)
            _, by_parameter = jax.jit(value_and_grad)(self.params, self._examples)
        return super().gradients() | {name: np.asarray(g) for name, g in by_parameter.items()}

    @property
    def _examples(self) -> Int[np.ndarray, "batch ids"]:
        """The token ids of each example: its input, its targets, and the least likely tokens."""
        return np.concatenate([self._fed, self._targets, self.unlikely], axis=1)

    @property
    def _n_tokens(self) -> int:
        return int(self._examples.max()) + 1

    def _losses_of(
        self, params: Params, examples: Int[Array, "batch ids"]
    ) -> tuple[Float[Array, "batch n_predicted"], Float[Array, "batch n_predicted"]]:
        fed = self._fed.shape[1]
        predicted = fed + len(self.inputs.predicted)
        logits = self._model(params)(examples[:, :fed])
        return (
            self._losses(logits, examples[:, fed:predicted]),
            self._losses(logits, examples[:, predicted:]),
        )


@functools.cache
def gradient_by_fusing(cfg: HookedTransformerConfig, objective: Objective) -> ValueAndGrad:
    """Make a function that computes the training loss and its gradient by the fused engine."""
    return fused_value_and_grad(
        lambda params, batch: mean_loss(cfg, params, batch, objective), cfg.d_vocab, fallback=False
    )
