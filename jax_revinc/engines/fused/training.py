"""Updates in a row as one compiled program: losses, gradients and the optimizer."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from jax_revinc.engines.fused.agreement import require_agreement
from jax_revinc.engines.fused.flat import flattened
from jax_revinc.engines.fused.front import trace
from jax_revinc.engines.fused.gradient import Loss, ValueAndGrad, check, gradient_call
from jax_revinc.engines.fused.source import layout_of, training_source
from jax_revinc.engines.fused.target import registered
from jax_revinc.engines.fused.update import MakeOptimizer, trace_update, updated


class Packed(NamedTuple):
    """A model in training, or models side by side: few arrays, for XLA takes its time over many.

    Attributes:
        params: all parameters, in their pytree's order.
        kept: what the optimizer keeps of each, array by array.
        common: the rest of the optimizer's state, which may be any pytree.
    """

    params: Float[Array, "*models n_parameters"]
    kept: list[Float[Array, "*models n_parameters"]]
    common: Any


class FusedTraining:
    """A loop of updates as one compiled program for the CPU; its methods may be called inside `jax.jit`.

    Args:
        loss: as `fused_value_and_grad` takes it.
        make_optimizer: from rates, any pytree of scalars of the parameters' type, to an optimizer that treats every
            number by itself.
        rates: these, or their shapes and types.
        params: the parameters, or their shapes and types.
        length: tokens of an example.
        n_tokens: token ids are in ``0 .. n_tokens - 1``. Others are not noticed: their result means nothing.
        many: train models side by side. Then rates, parameters and batches have an axis of models first, and the
            sequences may have it; what becomes of a model depends on no other.
        lanes: scalars of a vector; by default what suits this CPU.

    Raises:
        NotFusible: where loss or optimizer can't be fused, or turn out to differ from XLA's.
        CannotBuild: without a compiler that works.
    """

    def __init__(
        self,
        loss: Loss,
        make_optimizer: MakeOptimizer,
        rates: Any,
        params: Any,
        length: int,
        n_tokens: int,
        *,
        many: bool = False,
        lanes: int | None = None,
    ) -> None:
        flat, self._unravel = flattened(params)
        layout = layout_of(flat, lanes, many)
        program = trace(jax.value_and_grad(loss), params, length, n_tokens)
        self._make_optimizer, self._many = make_optimizer, many
        self._update = trace_update(make_optimizer, rates, params, layout.dtype)
        source = training_source(program, self._update, layout)
        value_and_grad = gradient_call(source, flat, many)
        examples = (layout.lanes + 1, length)
        of_flat = lambda numbers, tokens: loss(self._unravel(numbers), tokens)  # noqa: E731
        evidence = (source, program.origin, self._update.origin)
        check(value_and_grad, of_flat, flat, examples, n_tokens, many, evidence)
        self._target = registered(source, "train")
        self._check(value_and_grad, rates, params, examples, evidence)

    def start(self, rates: Any, params: Any) -> Packed:
        """The state before the first update."""
        init = self._each(lambda rates, params: self._make_optimizer(rates).init(params))
        return self.pack(params, init(rates, params))

    def pack(self, params: Any, opt_state: optax.OptState) -> Packed:
        """Parameters and the optimizer's state of them, in few arrays."""
        leaves, common = self._update.split(opt_state)
        n = len(jax.tree.leaves(params))
        kept = [leaves[first : first + n] for first in range(0, len(leaves), n)]
        pack = self._each(lambda tree: ravel_pytree(tree)[0])
        return Packed(pack(params), [pack(of_all) for of_all in kept], common)

    def params(self, state: Packed) -> Any:
        """The parameters."""
        return self._each(self._unravel)(state.params)

    def advance(
        self,
        rates: Any,
        state: Packed,
        sequences: Int[Array, "*models n_sequences seq"],
        batches: Int[Array, "*models capacity batch"],
        n_steps: Int[Array, ""],
    ) -> tuple[Packed, Float[Array, "*models capacity"]]:
        """The state after the first `n_steps` of the batches, and each batch's loss before its update.

        Args:
            rates: what the optimizer is given.
            state: that before.
            sequences: token ids of examples.
            batches: the examples of every update, by their number.
            n_steps: how many updates, at most `capacity`; the losses of the others are 0.
        """
        share = partial(self._update.shared, capacity=batches.shape[-2], n_steps=n_steps)
        common, shared = self._each(share)(rates, state.common)
        integers = (jnp.asarray(x, jnp.int32) for x in (sequences, batches, n_steps))
        numbers = [state.params, *state.kept]
        shapes = [*(x.shape for x in numbers), shared.shape[:-1]]
        results = [jax.ShapeDtypeStruct(shape, shared.dtype) for shape in shapes]
        params, *kept, losses = jax.ffi.ffi_call(self._target, results)(*numbers, shared, *integers)
        return Packed(params, kept, common), losses

    def _each(self, function: Any) -> Any:
        return jax.vmap(function) if self._many else function

    def _check(
        self,
        value_and_grad: ValueAndGrad,
        rates: Any,
        params: Any,
        examples: tuple[int, int],
        evidence: tuple[str, ...],
    ) -> None:
        """Compare an update of random models with optax', by the same gradient.

        Raises:
            NotFusible: if they differ by more than rounding.
        """
        rng = np.random.default_rng(0)
        models = (2,) if self._many else ()

        def init(rates: Any, params: Any) -> Any:
            return self._make_optimizer(rates).init(params)

        by_optax = partial(updated, self._make_optimizer)

        def both(rates: Any, params: Any, opt_state: Any) -> tuple[Packed, Packed]:
            state = self.pack(params, opt_state)
            sequences = jnp.zeros((*models, *examples), jnp.int32)
            everything = jnp.broadcast_to(jnp.arange(examples[0]), (*models, 1, examples[0]))
            found, _ = self.advance(rates, state, sequences, everything, jnp.asarray(1))
            grads = self._each(self._unravel)(value_and_grad(state.params, sequences)[1])
            return found, self.pack(*self._each(by_optax)(rates, opt_state, params, grads))

        # Positive numbers, for among them are mean squares and rates.
        drawn = jax.tree.map(
            lambda x: rng.uniform(0.1, 1, (*models, *x.shape)).astype(x.dtype),
            (rates, params, jax.eval_shape(init, rates, params)),
        )
        require_agreement("what its optimizer does", both, drawn, evidence)
