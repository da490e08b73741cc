"""The engine ``xla``'s functions for training and evaluation, which XLA compiles for any device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.engines import gpu
from jax_revinc.engines.compiled_programs import Counted, ProgramKey, Programs
from jax_revinc.engines.ordered_sums import with_ordered_sums
from jax_revinc.objective import Params, eval_counts, mean_loss
from jax_revinc.optimizer import Hyperparameters, OptimizerSpec, make_optimizer
from revinc import HookedTransformerConfig
from revinc.engine import EVALUATED_AT_ONCE
from revinc.objective import Objective

State = tuple[Params, optax.OptState]
ValueAndGrad = Callable[[Params, Int[Array, "batch seq"]], tuple[Float[Array, ""], Params]]
Gradient = Callable[[HookedTransformerConfig, Objective], ValueAndGrad]
"""Makes a function that computes `mean_loss` and its gradient, from a model and an objective."""


def xla_programs(key: ProgramKey, *, many: bool) -> Programs:
    """Collect the functions of the engine ``xla``, which XLA compiles when they are first called.

    A state is the params and the optimizer's state, as pytrees. Programs for a GPU are compiled as
    `gpu` says.

    Args:
        key: everything that is compiled in.
        many: whether to train many models side by side.
    """
    return Programs(
        identity={"name": "xla"},
        start=partial(start_all if many else start, key),
        advance=gpu.OnItsDevice(
            elsewhere=partial(advance_all if many else advance, key),
            on_gpu=advance_on_gpu(key, many=many),
        ),
        count=gpu.OnItsDevice(
            elsewhere=partial(count_all if many else count, key),
            on_gpu=count_on_gpu(key, many=many),
        ),
        params=params_of,
    )


def advance_on_gpu(key: ProgramKey, *, many: bool) -> gpu.Program:
    """Make the function `advance`, or `advance_all` for many models, as it runs on a GPU."""
    if many:
        ordered = partial(advance_all, key, gradient=ordered_gradient_by_xla)
        return gpu.jit(ordered, donate_argnums=1)
    return gpu.jit(partial(advance, key, gradient=ordered_gradient_by_xla))


def count_on_gpu(key: ProgramKey, *, many: bool) -> gpu.Program:
    """Make the function `count`, or `count_all` for many models, as it runs on a GPU."""
    return gpu.jit(partial(count_all if many else count, key))


def params_of(state: State) -> Params:
    """The parameters in a training state, which is a pair of parameters and optimizer state."""
    return state[0]


def gradient_by_xla(cfg: HookedTransformerConfig, objective: Objective) -> ValueAndGrad:
    """Make the function that computes the training loss and its gradient, by XLA."""
    return jax.value_and_grad(lambda params, batch: mean_loss(cfg, params, batch, objective))


def ordered_gradient_by_xla(cfg: HookedTransformerConfig, objective: Objective) -> ValueAndGrad:
    """Make the function of `gradient_by_xla` that leaves no order of additions to chance."""
    return with_ordered_sums(gradient_by_xla(cfg, objective))


def update(
    cfg: HookedTransformerConfig,
    spec: OptimizerSpec,
    objective: Objective,
    hyperparameters: Hyperparameters,
    state: State,
    batch: Int[Array, "batch seq"],
    gradient: Gradient | None = None,
) -> tuple[State, Float[Array, ""]]:
    """Make one training step: return the state after it, and the batch's mean loss before it.

    Args:
        cfg: the model config.
        spec: the numbers of the optimizer that are compiled in.
        objective: the loss that training minimises.
        hyperparameters: the numbers of the optimizer that are traced.
        state: the params and the optimizer's state.
        batch: token ids.
        gradient: makes the function that computes the loss and its gradient; XLA's by default.
    """
    params, opt_state = state
    loss, grads = (gradient or gradient_by_xla)(cfg, objective)(params, batch)
    updates, opt_state = make_optimizer(spec, hyperparameters).update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), loss


@partial(jax.jit, static_argnames="key")
def start(key: ProgramKey, hyperparameters: Hyperparameters, params: Params) -> State:
    """Make the training state before the first update: the parameters and a new optimizer state."""
    return params, make_optimizer(key.optimizer, hyperparameters).init(params)


@partial(jax.jit, static_argnames=("key", "gradient"))
def advance(
    key: ProgramKey,
    hyperparameters: Hyperparameters,
    state: State,
    tokens: Int[Array, "n_sequences seq"],
    rows: Int[Array, "capacity batch"],
    n_steps: Int[Array, ""],
    *,
    gradient: Gradient | None = None,
) -> tuple[State, Float[Array, " capacity"]]:
    """Train for `n_steps` updates; return the state after them, and each batch's loss before its
    update. `gradient` is that of `update`.
    """

    def step(i: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
        state, losses = carry
        model, spec, objective, *_ = key
        state, loss = update(
            model, spec, objective, hyperparameters, state, tokens[rows[i]], gradient
        )
        return state, losses.at[i].set(loss)

    losses = jnp.zeros(len(rows), key.model.dtype)
    return jax.lax.fori_loop(0, n_steps, step, (state, losses))


@partial(jax.jit, static_argnames="key")
def count(
    key: ProgramKey,
    state: State,
    tokens: Int[Array, "n_sequences seq"],
    masks: Bool[Array, "splits n_sequences"],
) -> Counted:
    """For the training and the holdout split, the loss summed over all predicted tokens, and how
    many of the tokens are predicted right.
    """

    def count_one(sequence: Int[Array, " seq"]) -> tuple[Float[Array, ""], Int[Array, ""]]:
        return eval_counts(key.model, params_of(state), sequence, key.eval_positions)

    each = jax.lax.map(count_one, tokens, batch_size=min(len(tokens), EVALUATED_AT_ONCE))
    losses, right = (jnp.where(masks, of_sequence, 0).sum(-1) for of_sequence in each)
    return losses, right


@partial(jax.jit, static_argnames="key")
def start_all(key: ProgramKey, hyperparameters: Hyperparameters, params: Params) -> State:
    """Make the training states of many models before their first update."""
    return jax.vmap(partial(start, key))(hyperparameters, params)


@partial(jax.jit, static_argnames=("key", "gradient"), donate_argnames="state")
def advance_all(
    key: ProgramKey,
    hyperparameters: Hyperparameters,
    state: State,
    tokens: Int[Array, "*models n_sequences seq"],
    rows: Int[Array, "models capacity batch"],
    n_steps: Int[Array, ""],
    *,
    gradient: Gradient | None = None,
) -> tuple[State, Float[Array, "models capacity"]]:
    """Train many models for `n_steps` updates; return their states after them, and each batch's
    loss before its update. `gradient` is that of `update`.
    """
    axes = (0, 0, model_axis(tokens), 0, None)
    advance_each = jax.vmap(partial(advance, key, gradient=gradient), in_axes=axes)
    return advance_each(hyperparameters, state, tokens, rows, n_steps)


@partial(jax.jit, static_argnames="key")
def count_all(
    key: ProgramKey,
    state: State,
    tokens: Int[Array, "*models n_sequences seq"],
    masks: Bool[Array, "models splits n_sequences"],
) -> Counted:
    """For each model and each split, training and holdout, the loss summed over all predicted
    tokens, and how many of the tokens are predicted right.
    """
    axes = (0, model_axis(tokens), 0)
    return jax.vmap(partial(count, key), in_axes=axes)(state, tokens, masks)


def model_axis(tokens: Int[Array, "*models n_sequences seq"]) -> int | None:
    """The axis of the array `tokens` that counts models; None if all models share the tokens."""
    return 0 if tokens.ndim == 3 else None
