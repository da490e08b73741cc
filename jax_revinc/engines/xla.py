"""The programs that XLA compiles: a loop of updates, and evaluations, on whatever device JAX has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from jax_revinc.engines.programs import Counted, Recipe
from jax_revinc.objective import Params, mean_loss, summed
from jax_revinc.optimizer import Fixed, Rates, make_optimizer
from revinc import HookedTransformerConfig
from revinc.objective import Objective

State = tuple[Params, optax.OptState]
ValueAndGrad = Callable[[Params, Int[Array, "batch seq"]], tuple[Float[Array, ""], Params]]
Gradient = Callable[[HookedTransformerConfig, Objective], ValueAndGrad]
"""How `mean_loss` and its gradient by the parameters are computed."""

EVALUATED_AT_ONCE = 1024
"""Sequences that an evaluation holds in memory together."""


def gradient_by_xla(cfg: HookedTransformerConfig, objective: Objective) -> ValueAndGrad:
    """JAX's own derivative of the loss, which XLA compiles with what is around it."""
    return jax.value_and_grad(lambda params, batch: mean_loss(cfg, params, batch, objective))


class XlaPrograms:
    """See `jax_revinc.engines.programs.Programs`. A state is the parameters and the optimizer's state, pure pytrees."""

    def __init__(self, recipe: Recipe, many: bool) -> None:
        self.identity = {"name": "xla"}
        self._recipe, self._many = recipe, many

    def start(self, rates: Rates, params: Params) -> State:
        start = start_all if self._many else start_one
        return start(self._recipe, rates, params)

    def advance(
        self,
        rates: Rates,
        state: State,
        tokens: Int[ArrayLike, "*models n_sequences seq"],
        batches: Int[ArrayLike, "*models capacity batch"],
        n_steps: Int[ArrayLike, ""],
    ) -> tuple[State, Float[Array, "*models capacity"]]:
        run = advance_all if self._many else advance
        return run(self._recipe, rates, state, tokens, batches, n_steps)

    def count(
        self,
        state: State,
        tokens: Int[ArrayLike, "*models n_sequences seq"],
        masks: Bool[ArrayLike, "*models splits n_sequences"],
    ) -> Counted:
        run = count_all if self._many else count
        return run(self._recipe, state[0], tokens, masks)

    def params(self, state: State) -> Params:
        return state[0]


def update(
    cfg: HookedTransformerConfig,
    fixed: Fixed,
    objective: Objective,
    rates: Rates,
    state: State,
    batch: Int[Array, "batch seq"],
    gradient: Gradient | None = None,
) -> tuple[State, Float[Array, ""]]:
    """One training step on the sequences of `batch`, and their mean loss before it; the gradient is XLA's by default."""
    params, opt_state = state
    loss, grads = (gradient or gradient_by_xla)(cfg, objective)(params, batch)
    updates, opt_state = make_optimizer(fixed, rates).update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), loss


@partial(jax.jit, static_argnames="recipe")
def start_one(recipe: Recipe, rates: Rates, params: Params) -> State:
    """The parameters and the optimizer's state before the first update."""
    return params, make_optimizer(recipe.fixed, rates).init(params)


@partial(jax.jit, static_argnames="recipe")
def advance(
    recipe: Recipe,
    rates: Rates,
    state: State,
    tokens: Int[Array, "n_sequences seq"],
    batches: Int[Array, "capacity batch"],
    n_steps: Int[Array, ""],
) -> tuple[State, Float[Array, " capacity"]]:
    """The first `n_steps` updates of `batches`, and each batch's loss before its update."""

    def step(i: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
        state, losses = carry
        model, fixed, objective, *_ = recipe
        state, loss = update(model, fixed, objective, rates, state, tokens[batches[i]])
        return state, losses.at[i].set(loss)

    losses = jnp.zeros(len(batches), recipe.model.dtype)
    return jax.lax.fori_loop(0, n_steps, step, (state, losses))


@partial(jax.jit, static_argnames="recipe")
def count(
    recipe: Recipe,
    params: Params,
    tokens: Int[Array, "n_sequences seq"],
    masks: Bool[Array, "splits n_sequences"],
) -> Counted:
    """Over the sequences of every split, the summed loss of the predicted tokens and how many are right."""

    def count_one(sequence: Int[Array, " seq"]) -> tuple[Float[Array, ""], Int[Array, ""]]:
        return summed(recipe.model, params, sequence, recipe.predicted)

    each = jax.lax.map(count_one, tokens, batch_size=min(len(tokens), EVALUATED_AT_ONCE))
    losses, right = (jnp.where(masks, of_sequence, 0).sum(-1) for of_sequence in each)
    return losses, right


@partial(jax.jit, static_argnames="recipe")
def start_all(recipe: Recipe, rates: Rates, params: Params) -> State:
    """The parameters and the optimizer's state of every model before the first update."""
    return params, jax.vmap(lambda r, p: make_optimizer(recipe.fixed, r).init(p))(rates, params)


@partial(jax.jit, static_argnames="recipe", donate_argnames="state")
def advance_all(
    recipe: Recipe,
    rates: Rates,
    state: State,
    tokens: Int[Array, "*models n_sequences seq"],
    batches: Int[Array, "models capacity batch"],
    n_steps: Int[Array, ""],
) -> tuple[State, Float[Array, "models capacity"]]:
    """`advance` for every model."""
    axes = (0, 0, model_axis(tokens), 0, None)
    return jax.vmap(partial(advance, recipe), in_axes=axes)(rates, state, tokens, batches, n_steps)


@partial(jax.jit, static_argnames="recipe")
def count_all(
    recipe: Recipe,
    params: Params,
    tokens: Int[Array, "*models n_sequences seq"],
    masks: Bool[Array, "models splits n_sequences"],
) -> Counted:
    """`count` for every model."""
    axes = (0, model_axis(tokens), 0)
    return jax.vmap(partial(count, recipe), in_axes=axes)(params, tokens, masks)


def model_axis(tokens: Int[Array, "*models n_sequences seq"]) -> int | None:
    """The axis of `tokens` along which every model has its own, if there is one."""
    return 0 if tokens.ndim == 3 else None
