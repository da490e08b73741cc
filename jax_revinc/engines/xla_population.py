"""Many runs side by side in one program that XLA compiles, on one device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.engines.xla import (
    Counted,
    Gradient,
    State,
    advance,
    as_metrics,
    count,
    gradient_by_xla,
    identity_on,
    in_words,
    padded,
)
from jax_revinc.numerics import with_numerics
from jax_revinc.objective import Params
from jax_revinc.optimizer import Fixed, Rates, make_optimizer, optimizer_numbers
from revinc import HookedTransformerConfig, TrainConfig
from revinc.dataset import Dataset, make_dataset
from revinc.engine import chunk_capacity
from revinc.objective import Objective, make_objective
from revinc.validation import require_int
from revinc.weights import StateDict, parameter_shapes

CPU_WIDTH = 128
"""Models that a CPU trains side by side by default: with more, a step costs each no less."""

WIDTH = 4096
"""The same elsewhere: a step of few models takes as long there as one of many."""


class Running(NamedTuple):
    """Runs under way: those of `data`, and behind them as many that nobody asked for as fill the program."""

    data: Sequence[Dataset]
    rates: Rates
    tokens: Int[Array | np.ndarray, "*models n_sequences seq"]
    masks: Bool[Array, "models splits n_sequences"]
    state: State


class XlaPopulation:
    """See `revinc.engine.PopulationEngine`. A state is that of `XlaEngine`, every array with a model axis first.

    A device always runs the same program, of one width, however few models are left; and several devices
    run one each, not one program together, which XLA compiles otherwise for two devices than for one. So a
    model's bits depend neither on its neighbours and its place, nor on how many devices there are.

    Args:
        cfg: the recipe, from which the runs may differ in rates, split and seeds.
        width: models side by side; by default what suits the platform.
        device: the first of this process by default.

    Raises:
        UserError: for a width below 1.
    """

    def __init__(
        self, cfg: TrainConfig, width: int | None = None, device: jax.Device | None = None
    ) -> None:
        device = jax.local_devices()[0] if device is None else device
        if width is None:
            width = CPU_WIDTH if device.platform == "cpu" else WIDTH
        require_int("width", width, at_least=1)
        self.cfg = cfg.model
        self.width = width
        self.identity = {**identity_on(device), "width": str(width)}
        self.device = in_words(device)
        self._device = device
        self._gradient: Gradient = gradient_by_xla
        self._fixed, _ = optimizer_numbers(cfg)
        self._capacity = chunk_capacity(cfg)
        self._data = make_dataset(cfg)
        self._is_drawn = cfg.task.is_drawn
        self._objective = make_objective(cfg)

    @with_numerics
    def start(self, runs: Sequence[TrainConfig], weights: StateDict) -> Running:
        each_rates = [optimizer_numbers(run)[1] for run in runs]
        each_data = [make_dataset(run) for run in runs]
        rates = jax.tree.map(lambda *each: np.array(each, self.cfg.dtype), *each_rates)
        masks = np.stack([[data.train_mask, data.holdout_mask] for data in each_data])
        tokens = self._tokens_of([data.tokens for data in each_data])
        params = {name: weights[name] for name in parameter_shapes(self.cfg)}
        rates, masks, params = jax.tree.map(self._filled_up, (rates, masks, params))
        return Running(each_data, rates, tokens, masks, start_all(self._fixed, rates, params))

    @with_numerics
    def advance(
        self, running: Running, batches: Int[np.ndarray, "models steps batch"]
    ) -> tuple[Running, Float[np.ndarray, "models steps"]]:
        n_models, n_steps, _ = batches.shape
        each = zip(running.data, padded(batches, self._capacity), strict=True)
        tokens, rows = zip(*(data.examples(of_run) for data, of_run in each), strict=True)
        state, losses = advance_all(
            self.cfg,
            self._fixed,
            self._objective,
            self._gradient,
            running.rates,
            running.state,
            self._tokens_of(tokens),
            self._filled_up(np.stack(rows)),
            n_steps,
        )
        return running._replace(state=state), np.asarray(losses)[:n_models, :n_steps]

    @with_numerics
    def evaluate(self, running: Running) -> dict[str, Float[np.ndarray, " models"]]:
        counted = count_all(
            self.cfg, self._data.predicted, running.state[0], running.tokens, running.masks
        )
        metrics = as_metrics(counted, self._data)
        return {name: values[: len(running.data)] for name, values in metrics.items()}

    def weights(self, running: Running) -> StateDict:
        params, n = running.state[0], len(running.data)
        return {name: np.array(params[name])[:n] for name in parameter_shapes(self.cfg)}

    def _tokens_of(
        self, each: Sequence[Int[np.ndarray, "n_sequences seq"]]
    ) -> Int[Array | np.ndarray, "*models n_sequences seq"]:
        """The sequences of all models: once if all see the same, those of a listed task; else with a model axis."""
        return self._filled_up(np.stack(each)) if self._is_drawn else each[0]

    def _filled_up(self, of_models: np.ndarray) -> Array:
        """An array with a model axis, as long as the program is wide, on the device."""
        places = np.minimum(np.arange(self.width), len(of_models) - 1)
        return jax.device_put(of_models[places], self._device)


@partial(jax.jit, static_argnames="fixed")
def start_all(fixed: Fixed, rates: Rates, params: Params) -> State:
    """The parameters and the optimizer's state of every model before the first update."""
    return params, jax.vmap(lambda r, p: make_optimizer(fixed, r).init(p))(rates, params)


@partial(
    jax.jit, static_argnames=("cfg", "fixed", "objective", "gradient"), donate_argnames="state"
)
def advance_all(
    cfg: HookedTransformerConfig,
    fixed: Fixed,
    objective: Objective,
    gradient: Gradient,
    rates: Rates,
    state: State,
    tokens: Int[Array, "*models n_sequences seq"],
    batches: Int[Array, "models capacity batch"],
    n_steps: Int[Array, ""],
) -> tuple[State, Float[Array, "models capacity"]]:
    """`advance` for every model."""
    axes = (0, 0, model_axis(tokens), 0, None)
    return jax.vmap(partial(advance, cfg, fixed, objective, gradient), in_axes=axes)(
        rates, state, tokens, batches, n_steps
    )


@partial(jax.jit, static_argnames=("cfg", "predicted"))
def count_all(
    cfg: HookedTransformerConfig,
    predicted: tuple[int, ...],
    params: Params,
    tokens: Int[Array, "*models n_sequences seq"],
    masks: Bool[Array, "models splits n_sequences"],
) -> Counted:
    """`count` for every model."""
    axes = (0, model_axis(tokens), 0)
    return jax.vmap(partial(count, cfg, predicted), in_axes=axes)(params, tokens, masks)


def model_axis(tokens: Int[Array, "*models n_sequences seq"]) -> int | None:
    """The axis of `tokens` along which every model has its own, if there is one."""
    return 0 if tokens.ndim == 3 else None
