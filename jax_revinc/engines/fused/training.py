"""The fused engine's two training loops: one is compiled to C++ as a whole; in the other, only the
gradient is, and XLA runs the Optax optimizer.
"""

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

from jax_revinc.engines.fused.build import ffi_target
from jax_revinc.engines.fused.emit import training_source
from jax_revinc.engines.fused.gradient import (
    Loss,
    ValueAndGrad,
    build_value_and_grad,
    value_and_grad_of,
    verify_gradient,
)
from jax_revinc.engines.fused.kept_sources import Keep, make
from jax_revinc.engines.fused.spec import Spec
from jax_revinc.engines.fused.trace import trace
from jax_revinc.engines.fused.update import MakeOptimizer, apply_update, trace_update
from jax_revinc.engines.fused.verify import require_agreement


class Packed(NamedTuple):
    """The training state of one model or many, with all parameters joined in one array, because XLA
    is slow to pass many arrays.

    Checkpoints name arrays by these fields.

    Attributes:
        params: all parameters, in the order of their pytree's leaves.
        kept: the moments: arrays of one number per parameter that the optimizer keeps.
        common: the rest of the optimizer's state, any pytree.
    """

    params: Float[Array, "*models n_parameters"]
    kept: list[Float[Array, "*models n_parameters"]]
    common: Any


class FusedTraining:
    """A training loop (loss, gradient and optimizer) as one compiled C++ program for the CPU.

    Its methods may be called inside `jax.jit`. If it trains many models, rates, parameters and rows
    have an axis of models first; sequences may have it.

    Args:
        loss: see `fused_value_and_grad`.
        make_optimizer: from rates, any pytree of scalars of the parameters' type, to an optimizer
            that updates every parameter by itself.
        rates: the scalars, or their shapes and types.
        spec: the parameters, examples and vectors to compile for.
        keep: where the verified source is kept; by default nowhere.

    Raises:
        NotFusible: if loss or optimizer can't be fused, or their results differ from XLA's.
        CannotBuild: without a compiler that works.
    """

    def __init__(
        self,
        loss: Loss,
        make_optimizer: MakeOptimizer,
        rates: Any,
        spec: Spec,
        keep: Keep = make,
    ) -> None:
        flat, self._unravel = spec.flatten()
        self._make_optimizer, self._many = make_optimizer, spec.many
        self._update = trace_update(make_optimizer, rates, spec.params)

        def loss_of_flat(params: Array, tokens: Array) -> Float[Array, ""]:
            return loss(self._unravel(params), tokens)

        def verified_source() -> str:
            program = trace(jax.value_and_grad(loss), spec)
            source = training_source(program, self._update.rules, flat)
            evidence = (source, program.origin, self._update.origin)
            value_and_grad = value_and_grad_of(source, flat)
            verify_gradient(value_and_grad, loss_of_flat, flat, evidence)
            self._target = ffi_target(source, "train")
            self._verify_update(value_and_grad, rates, spec, evidence)
            return source

        self._target = ffi_target(keep("training", verified_source), "train")

    def start(self, rates: Any, params: Any) -> Packed:
        """Make the state before the first update, with all parameters joined in one array."""
        init = self._per_model(lambda rates, params: self._make_optimizer(rates).init(params))
        return self.pack(params, init(rates, params))

    def pack(self, params: Any, opt_state: optax.OptState) -> Packed:
        """Join parameters and an Optax optimizer's state into a training state of few arrays."""
        moments, common = self._update.split(opt_state)
        n = len(jax.tree.leaves(params))
        ravel = self._per_model(lambda tree: ravel_pytree(tree)[0])
        kept = [ravel(moments[first : first + n]) for first in range(0, len(moments), n)]
        return Packed(ravel(params), kept, common)

    def params(self, state: Packed) -> Any:
        """The parameters of a training state, split into their original pytree."""
        return self._per_model(self._unravel)(state.params)

    def advance(
        self,
        rates: Any,
        state: Packed,
        sequences: Int[Array, "*models n_sequences seq"],
        rows: Int[Array, "*models capacity batch"],
        n_steps: Int[Array, ""],
    ) -> tuple[Packed, Float[Array, "*models capacity"]]:
        """Train for `n_steps` updates; return the state after them, and each batch's loss before
        its update.

        Args:
            rates: the argument of the optimizer's constructor.
            state: before the updates.
            sequences: token ids of examples.
            rows: the numbers of the sequences of every batch.
            n_steps: how many updates, at most `capacity`; later losses are 0.
        """
        scalars_of = partial(self._update.scalars, capacity=rows.shape[-2], n_steps=n_steps)
        common, scalars = self._per_model(scalars_of)(rates, state.common)
        integers = (jnp.asarray(x, jnp.int32) for x in (sequences, rows, n_steps))
        arrays = [state.params, *state.kept]
        shapes = [*(x.shape for x in arrays), scalars.shape[:-1]]
        results = [jax.ShapeDtypeStruct(shape, scalars.dtype) for shape in shapes]
        call = jax.ffi.ffi_call(self._target, results)
        params, *kept, losses = call(*arrays, scalars, *integers)
        return Packed(params, kept, common), losses

    def _per_model(self, function: Any) -> Any:
        return jax.vmap(function) if self._many else function

    def _verify_update(
        self, value_and_grad: ValueAndGrad, rates: Any, spec: Spec, evidence: tuple[str, ...]
    ) -> None:
        """Check that a compiled update of random models agrees with Optax' on the same gradient.

        Raises:
            NotFusible: if they differ by more than rounding.
        """
        rng = np.random.default_rng(0)
        models = (2,) if self._many else ()
        n_examples, _ = spec.check_shape
        sequences = jnp.zeros((*models, *spec.check_shape), jnp.int32)

        def init(rates: Any, params: Any) -> Any:
            return self._make_optimizer(rates).init(params)

        def fused(rates: Any, params: Any, opt_state: Any) -> Packed:
            rows = jnp.broadcast_to(jnp.arange(n_examples), (*models, 1, n_examples))
            state = self.pack(params, opt_state)
            return self.advance(rates, state, sequences, rows, jnp.asarray(1))[0]

        def expected(rates: Any, params: Any, opt_state: Any) -> Packed:
            flat = self.pack(params, opt_state).params
            grads = self._per_model(self._unravel)(value_and_grad(flat, sequences)[1])
            by_optax = self._per_model(partial(apply_update, self._make_optimizer))
            return self.pack(*by_optax(rates, opt_state, params, grads))

        # Positive numbers: among them are rates and mean squares.
        drawn = jax.tree.map(
            lambda x: rng.uniform(0.1, 1, (*models, *x.shape)).astype(x.dtype),
            (rates, spec.params, jax.eval_shape(init, rates, spec.params)),
        )
        require_agreement("update", fused, expected, drawn, evidence)


class OptaxTraining:
    """A training loop whose gradients are computed by compiled C++, and its updates by Optax in XLA.

    It is for optimizers whose update of one parameter depends on other parameters, such as clipping
    by the global norm. The methods are those of `FusedTraining`.

    Args:
        loss: see `fused_value_and_grad`.
        make_optimizer: from rates to an optimizer of all parameters in one array.
        spec: the parameters, examples and vectors to compile for.
        keep: where the verified source is kept; by default nowhere.

    Raises:
        NotFusible: if the loss can't be fused, or its gradient differs from XLA's.
        CannotBuild: without a compiler that works.
    """

    def __init__(
        self, loss: Loss, make_optimizer: MakeOptimizer, spec: Spec, keep: Keep = make
    ) -> None:
        flat, unravel = spec.flatten()
        self._make_optimizer, self._many = make_optimizer, spec.many
        self._value_and_grad = build_value_and_grad(
            lambda params, tokens: loss(unravel(params), tokens), flat, keep
        )

    def start(self, rates: Any, params: Any) -> Packed:
        """Make the state before the first update, with all parameters joined in one array."""

        def start_one(rates: Any, params: Any) -> Packed:
            flat, _ = ravel_pytree(params)
            return Packed(flat, [], self._make_optimizer(rates).init(flat))

        return (jax.vmap(start_one) if self._many else start_one)(rates, params)

    def advance(
        self,
        rates: Any,
        state: Packed,
        sequences: Int[Array, "*models n_sequences seq"],
        rows: Int[Array, "*models capacity batch"],
        n_steps: Int[Array, ""],
    ) -> tuple[Packed, Float[Array, "*models capacity"]]:
        """Train for `n_steps` updates; return the state after them, and each batch's loss before
        its update.
        """

        def examples(sequences: Array, rows: Array) -> Array:
            return sequences[rows]

        def update(rates: Any, state: Packed, grads: Array) -> Packed:
            params, opt_state = apply_update(
                self._make_optimizer, rates, state.common, state.params, grads
            )
            return Packed(params, [], opt_state)

        if self._many:
            examples = jax.vmap(examples, in_axes=(0 if sequences.ndim == 3 else None, 0))
            update = jax.vmap(update)

        def step(i: Array, carry: tuple[Packed, Array]) -> tuple[Packed, Array]:
            state, losses = carry
            batch = examples(sequences, rows[..., i, :])
            loss, grads = self._value_and_grad(state.params, batch)
            return update(rates, state, grads), losses.at[..., i].set(loss)

        losses = jnp.zeros(rows.shape[:-1], state.params.dtype)
        return jax.lax.fori_loop(0, n_steps, step, (state, losses))
