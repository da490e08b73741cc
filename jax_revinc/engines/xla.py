"""The engine that XLA compiles: a loop of updates as one program, on whatever device JAX has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.numerics import with_numerics
from jax_revinc.objective import Params, mean_loss, predictions, token_losses
from jax_revinc.optimizer import Fixed, Rates, make_optimizer, optimizer_numbers
from revinc import HookedTransformerConfig, TrainConfig
from revinc.dataset import Dataset, make_dataset
from revinc.engine import METRICS, chunk_capacity
from revinc.objective import Objective, make_objective
from revinc.weights import StateDict, parameter_shapes

State = tuple[Params, optax.OptState]
ValueAndGrad = Callable[[Params, Int[Array, "batch seq"]], tuple[Float[Array, ""], Params]]
Gradient = Callable[[HookedTransformerConfig, Objective], ValueAndGrad]
"""How an engine has `mean_loss` and its gradient by the parameters computed."""

Counted = tuple[Float[Array, "*models splits"], Int[Array, "*models splits"]]

EVALUATED_AT_ONCE = 1024
"""Sequences that an evaluation holds in memory together."""


def gradient_by_xla(cfg: HookedTransformerConfig, objective: Objective) -> ValueAndGrad:
    """JAX's own derivative of the loss, which XLA compiles with what is around it."""
    return jax.value_and_grad(lambda params, batch: mean_loss(cfg, params, batch, objective))


class XlaEngine:
    """See `revinc.engine.Engine`. A state is the parameters and the optimizer's state, pure pytrees.

    Engines share their compiled programs: another seed, learning rate or weight decay compiles nothing.
    """

    def __init__(self, train_cfg: TrainConfig) -> None:
        (device,) = jnp.zeros(()).devices()
        self.cfg = train_cfg.model
        self.identity = identity_on(device)
        self.device = in_words(device)
        self._data = make_dataset(train_cfg)
        self._objective = make_objective(train_cfg)
        self._fixed, self._rates = optimizer_numbers(train_cfg)
        self._capacity = chunk_capacity(train_cfg)

    @with_numerics
    def start(self, weights: StateDict) -> State:
        params = {name: jnp.asarray(weight) for name, weight in weights.items()}
        return params, jax.jit(make_optimizer(self._fixed, self._rates).init)(params)

    @with_numerics
    def advance(
        self, state: State, batches: Int[np.ndarray, "steps batch"]
    ) -> tuple[State, Float[np.ndarray, " steps"]]:
        # Always the same shapes and the same program, so that chunking can't change a bit.
        tokens, rows = self._data.examples(padded(batches, self._capacity))
        state, losses = advance(
            self.cfg,
            self._fixed,
            self._objective,
            gradient_by_xla,
            jax.tree.map(lambda rate: jnp.asarray(rate, self.cfg.dtype), self._rates),
            state,
            tokens,
            rows,
            len(batches),
        )
        return state, np.array(losses)[: len(batches)]

    @with_numerics
    def evaluate(self, state: State) -> dict[str, float]:
        data = self._data
        masks = np.stack([data.train_mask, data.holdout_mask])
        counted = count(self.cfg, data.predicted, state[0], data.tokens, masks)
        return {name: float(values) for name, values in as_metrics(counted, data).items()}

    def weights(self, state: State) -> StateDict:
        return {name: np.array(state[0][name]) for name in parameter_shapes(self.cfg)}

    def to_arrays(self, state: State) -> dict[str, np.ndarray]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(state)
        return {jax.tree_util.keystr(path): np.array(leaf) for path, leaf in leaves}

    @with_numerics
    def from_arrays(self, arrays: dict[str, np.ndarray]) -> State:
        shapes = {
            name: jax.ShapeDtypeStruct(shape, self.cfg.dtype)
            for name, shape in parameter_shapes(self.cfg).items()
        }
        template = (shapes, jax.eval_shape(make_optimizer(self._fixed, self._rates).init, shapes))
        return jax.tree_util.tree_map_with_path(
            lambda path, _: jnp.asarray(arrays[jax.tree_util.keystr(path)]), template
        )


def padded(
    batches: Int[np.ndarray, "*models steps batch"], capacity: int
) -> Int[np.ndarray, "*models capacity batch"]:
    """The batches, and as many behind them, never looked at, as make `capacity` steps."""
    steps = [(0, 0)] * (batches.ndim - 2) + [(0, capacity - batches.shape[-2])]
    return np.pad(batches, [*steps, (0, 0)], mode="edge")


def identity_on(device: jax.Device) -> dict[str, str]:
    """What runs of this engine must share for their bits to be the same."""
    return {
        "name": "xla",
        "platform": device.platform,
        "device": device.device_kind,
        "jax": jax.__version__,
        "optax": optax.__version__,
    }


def in_words(device: jax.Device) -> str:
    """What a device is called where a person reads it."""
    return f"{device.platform}: {device.device_kind}"


def update(
    cfg: HookedTransformerConfig,
    fixed: Fixed,
    objective: Objective,
    rates: Rates,
    state: State,
    batch: Int[Array, "batch seq"],
    gradient: Gradient = gradient_by_xla,
) -> tuple[State, Float[Array, ""]]:
    """One training step on the sequences of `batch`, and their mean loss before it."""
    params, opt_state = state
    loss, grads = gradient(cfg, objective)(params, batch)
    updates, opt_state = make_optimizer(fixed, rates).update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), loss


@partial(jax.jit, static_argnames=("cfg", "fixed", "objective", "gradient"))
def advance(
    cfg: HookedTransformerConfig,
    fixed: Fixed,
    objective: Objective,
    gradient: Gradient,
    rates: Rates,
    state: State,
    tokens: Int[Array, "n_sequences seq"],
    batches: Int[Array, "capacity batch"],
    n_steps: Int[Array, ""],
) -> tuple[State, Float[Array, " capacity"]]:
    """The first `n_steps` updates of `batches`, and each batch's loss before its update."""

    def step(i: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
        state, losses = carry
        state, loss = update(cfg, fixed, objective, rates, state, tokens[batches[i]], gradient)
        return state, losses.at[i].set(loss)

    losses = jnp.zeros(len(batches), cfg.dtype)
    return jax.lax.fori_loop(0, n_steps, step, (state, losses))


@partial(jax.jit, static_argnames=("cfg", "predicted"))
def count(
    cfg: HookedTransformerConfig,
    predicted: tuple[int, ...],
    params: Params,
    tokens: Int[Array, "n_sequences seq"],
    masks: Bool[Array, "splits n_sequences"],
) -> Counted:
    """Over the sequences of every split, the summed loss of the predicted tokens and how many are right."""

    def count_one(sequence: Int[Array, " seq"]) -> tuple[Float[Array, ""], Int[Array, ""]]:
        logits, targets = predictions(cfg, params, sequence[None], predicted)
        return token_losses(logits, targets).sum(), (logits.argmax(-1) == targets).sum()

    each = jax.lax.map(count_one, tokens, batch_size=min(len(tokens), EVALUATED_AT_ONCE))
    losses, right = (jnp.where(masks, of_sequence, 0).sum(-1) for of_sequence in each)
    return losses, right


def as_metrics(counted: Counted, data: Dataset) -> dict[str, Float[np.ndarray, "*models"]]:
    """The values of `METRICS` from what was counted over the training and the holdout split."""
    n_tokens = len(data.predicted) * np.array([data.train_mask.sum(), data.holdout_mask.sum()])
    means = [np.asarray(summed, np.float64) / n_tokens for summed in counted]
    columns = (mean[..., split] for mean in means for split in (0, 1))
    return dict(zip(METRICS, columns, strict=True))
