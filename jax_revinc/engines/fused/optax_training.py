"""Updates in a row, a loop that XLA runs: fused gradients, and optax as it is."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from jax_revinc.engines.fused.flat import flattened
from jax_revinc.engines.fused.gradient import Loss, build
from jax_revinc.engines.fused.training import Packed
from jax_revinc.engines.fused.update import MakeOptimizer, updated


class OptaxTraining:
    """`FusedTraining` for optimizers that look at all parameters together. These it gives them in one array.

    Args:
        loss: as `fused_value_and_grad` takes it.
        make_optimizer: from rates to an optimizer of all parameters in one array.
        params: the parameters, or their shapes and types.
        length: tokens of an example.
        n_tokens: token ids are in ``0 .. n_tokens - 1``. Others are not noticed: their result means nothing.
        many: train models side by side, as `FusedTraining` does.
        lanes: scalars of a vector; by default what suits this CPU.

    Raises:
        NotFusible: where the loss can't be fused, or its gradient turns out to differ from XLA's.
        CannotBuild: without a compiler that works.
    """

    def __init__(
        self,
        loss: Loss,
        make_optimizer: MakeOptimizer,
        params: Any,
        length: int,
        n_tokens: int,
        *,
        many: bool = False,
        lanes: int | None = None,
    ) -> None:
        flat, unravel = flattened(params)
        self._make_optimizer, self._many = make_optimizer, many
        self._value_and_grad = build(
            lambda numbers, tokens: loss(unravel(numbers), tokens),
            flat,
            length,
            n_tokens,
            lanes,
            many=many,
        )

    def start(self, rates: Any, params: Any) -> Packed:
        """The state before the first update."""

        def start_one(rates: Any, params: Any) -> Packed:
            numbers, _ = ravel_pytree(params)
            return Packed(numbers, [], self._make_optimizer(rates).init(numbers))

        return (jax.vmap(start_one) if self._many else start_one)(rates, params)

    def advance(
        self,
        rates: Any,
        state: Packed,
        sequences: Int[Array, "*models n_sequences seq"],
        batches: Int[Array, "*models capacity batch"],
        n_steps: Int[Array, ""],
    ) -> tuple[Packed, Float[Array, "*models capacity"]]:
        """See `FusedTraining.advance`."""

        def examples(sequences: Array, rows: Array) -> Array:
            return sequences[rows]

        def update(rates: Any, state: Packed, grads: Array) -> Packed:
            params, opt_state = updated(
                self._make_optimizer, rates, state.common, state.params, grads
            )
            return Packed(params, [], opt_state)

        if self._many:
            examples = jax.vmap(examples, in_axes=(0 if sequences.ndim == 3 else None, 0))
            update = jax.vmap(update)

        def step(i: Array, carry: tuple[Packed, Array]) -> tuple[Packed, Array]:
            state, losses = carry
            batch = examples(sequences, batches[..., i, :])
            loss, grads = self._value_and_grad(state.params, batch)
            return update(rates, state, grads), losses.at[..., i].set(loss)

        losses = jnp.zeros(batches.shape[:-1], state.params.dtype)
        return jax.lax.fori_loop(0, n_steps, step, (state, losses))
