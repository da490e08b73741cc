"""The engine that XLA compiles: a loop of updates as one program, on whatever device JAX has."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.numerics import with_numerics
from jax_revinc.objective import Params, mean_loss, predictions, token_losses
from jax_revinc.optimizer import make_optimizer
from revinc import TrainConfig
from revinc.dataset import make_dataset
from revinc.engine import METRICS, chunk_capacity
from revinc.weights import StateDict, parameter_shapes

State = tuple[Params, optax.OptState]


class XlaEngine:
    """See `revinc.engine.Engine`. A state is the parameters and the optimizer's state, pure pytrees."""

    def __init__(self, train_cfg: TrainConfig) -> None:
        device = jax.devices()[0]
        self.cfg = train_cfg.model
        self.identity = {"name": "xla", "platform": device.platform, "jax": jax.__version__}
        self.device = f"{device.platform}: {device.device_kind}"
        self._dataset = make_dataset(train_cfg)
        self._optimizer = make_optimizer(train_cfg)
        self._batches_shape = (chunk_capacity(train_cfg), train_cfg.batch_size)
        self._advance = jax.jit(
            partial(advance, self.cfg, self._optimizer, self._dataset.loss_mask)
        )
        self._count = jax.jit(partial(count, self.cfg, self._dataset.loss_mask))

    @with_numerics
    def start(self, weights: StateDict) -> State:
        params = {name: jnp.asarray(weight) for name, weight in weights.items()}
        return params, jax.jit(self._optimizer.init)(params)

    @with_numerics
    def advance(
        self, state: State, batches: Int[np.ndarray, "steps batch"]
    ) -> tuple[State, Float[np.ndarray, " steps"]]:
        # Always the same shapes and the same program, so that chunking can't change a bit.
        padded = np.zeros(self._batches_shape, np.int32)
        padded[: len(batches)] = batches
        state, losses = self._advance(state, self._dataset.tokens, padded, len(batches))
        return state, np.asarray(losses)[: len(batches)]

    @with_numerics
    def evaluate(self, state: State) -> dict[str, float]:
        data = self._dataset
        n_predicted = int(data.loss_mask.sum())
        losses, correct = map(np.asarray, self._count(state[0], data.tokens))
        per_split = [
            summed[mask].sum(dtype=np.float64) / (mask.sum() * n_predicted)
            for summed in (losses, correct)
            for mask in (data.train_mask, data.holdout_mask)
        ]
        return dict(zip(METRICS, map(float, per_split), strict=True))

    def weights(self, state: State) -> StateDict:
        return {name: np.asarray(state[0][name]) for name in parameter_shapes(self.cfg)}

    def to_arrays(self, state: State) -> dict[str, np.ndarray]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(state)
        return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}

    @with_numerics
    def from_arrays(self, arrays: dict[str, np.ndarray]) -> State:
        shapes = {
            name: jax.ShapeDtypeStruct(shape, self.cfg.dtype)
            for name, shape in parameter_shapes(self.cfg).items()
        }
        template = (shapes, jax.eval_shape(self._optimizer.init, shapes))
        return jax.tree_util.tree_map_with_path(
            lambda path, _: jnp.asarray(arrays[jax.tree_util.keystr(path)]), template
        )


def advance(
    cfg: Any,
    optimizer: optax.GradientTransformation,
    loss_mask: np.ndarray,
    state: State,
    tokens: Int[Array, "n_sequences seq"],
    batches: Int[Array, "capacity batch"],
    n_steps: Int[Array, ""],
) -> tuple[State, Float[Array, " capacity"]]:
    """The first `n_steps` updates of `batches`, and each batch's loss before its update."""

    def update(step: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
        (params, opt_state), losses = carry
        loss, grads = jax.value_and_grad(
            lambda params: mean_loss(cfg, params, tokens[batches[step]], loss_mask)
        )(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return (params, opt_state), losses.at[step].set(loss)

    losses = jnp.zeros(len(batches), cfg.dtype)
    return jax.lax.fori_loop(0, n_steps, update, (state, losses))


def count(
    cfg: Any, loss_mask: np.ndarray, params: Params, tokens: Int[Array, "n_sequences seq"]
) -> tuple[Float[Array, " n_sequences"], Int[Array, " n_sequences"]]:
    """For every sequence, the summed loss of its predicted tokens and how many are right."""
    logits, targets = predictions(cfg, params, tokens, loss_mask)
    correct = logits.argmax(-1) == targets
    return token_losses(logits, targets).sum(-1), correct.sum(-1)
