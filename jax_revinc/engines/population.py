"""Engines that execute many runs side by side, on one device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.engines.device import identity_on, in_words
from jax_revinc.engines.fused_programs import fused_programs
from jax_revinc.engines.programs import MakePrograms, as_metrics, make_recipe, padded
from jax_revinc.engines.xla import XlaPrograms
from jax_revinc.numerics import with_numerics
from jax_revinc.optimizer import Rates, optimizer_numbers
from revinc import TrainConfig
from revinc.dataset import Dataset, make_dataset
from revinc.engine import chunk_capacity
from revinc.validation import require_int
from revinc.weights import StateDict, parameter_shapes

CPU_WIDTH = 128
"""Models that XLA trains side by side on a CPU by default: with more, a step costs each no less."""

WIDTH = 4096
"""The same elsewhere: a step of few models takes as long there as one of many."""

FUSED_WIDTH = 512
"""Models of the fused engine: enough that what is done between chunks of steps costs each little."""


class Running(NamedTuple):
    """Runs under way: those of `data`, and behind them as many that nobody asked for as fill the program."""

    data: Sequence[Dataset]
    rates: Rates
    tokens: Int[Array | np.ndarray, "*models n_sequences seq"]
    masks: Bool[Array, "models splits n_sequences"]
    state: Any


class XlaPopulation:
    """See `revinc.engine.PopulationEngine`.

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

    make_programs: MakePrograms = staticmethod(XlaPrograms)
    """What executes a recipe."""

    def __init__(
        self, cfg: TrainConfig, width: int | None = None, device: jax.Device | None = None
    ) -> None:
        device = jax.local_devices()[0] if device is None else device
        width = self.default_width(device) if width is None else width
        require_int("width", width, at_least=1)
        self.cfg = cfg.model
        self.width = width
        self._device = device
        self._data = make_dataset(cfg)
        self._is_drawn = cfg.task.is_drawn
        self._capacity = chunk_capacity(cfg)
        self._programs = self.make_programs(make_recipe(cfg, self._data), True)
        identity = {**self._programs.identity, **identity_on(device)}
        self.identity = {**identity, "width": str(width)}
        self.device = in_words(device)

    @staticmethod
    def default_width(device: jax.Device) -> int:
        """The width that suits a device."""
        return CPU_WIDTH if device.platform == "cpu" else WIDTH

    @with_numerics
    def start(self, runs: Sequence[TrainConfig], weights: StateDict) -> Running:
        each_rates = [optimizer_numbers(run)[1] for run in runs]
        each_data = [make_dataset(run) for run in runs]
        rates = jax.tree.map(lambda *each: np.array(each, self.cfg.dtype), *each_rates)
        masks = np.stack([[data.train_mask, data.holdout_mask] for data in each_data])
        tokens = self._tokens_of([data.tokens for data in each_data])
        params = {name: weights[name] for name in parameter_shapes(self.cfg)}
        rates, masks, params = jax.tree.map(self._filled_up, (rates, masks, params))
        state = self._programs.start(rates, params)
        return Running(each_data, rates, tokens, masks, state)

    @with_numerics
    def advance(
        self, running: Running, batches: Int[np.ndarray, "models steps batch"]
    ) -> tuple[Running, Float[np.ndarray, "models steps"]]:
        n_models, n_steps, _ = batches.shape
        each = zip(running.data, padded(batches, self._capacity), strict=True)
        tokens, rows = zip(*(data.examples(of_run) for data, of_run in each), strict=True)
        state, losses = self._programs.advance(
            running.rates,
            running.state,
            self._tokens_of(tokens),
            self._filled_up(np.stack(rows)),
            n_steps,
        )
        return running._replace(state=state), np.asarray(losses)[:n_models, :n_steps]

    @with_numerics
    def evaluate(self, running: Running) -> dict[str, Float[np.ndarray, " models"]]:
        counted = self._programs.count(running.state, running.tokens, running.masks)
        metrics = as_metrics(counted, self._data)
        return {name: values[: len(running.data)] for name, values in metrics.items()}

    def weights(self, running: Running) -> StateDict:
        params, n = self._programs.params(running.state), len(running.data)
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


class FusedPopulation(XlaPopulation):
    """`XlaPopulation`, but that losses, gradients, updates and evaluations are one generated program, a model per lane.

    Raises:
        NotFusible: where the model can't be fused.
        CannotBuild: where nothing can be compiled.
    """

    make_programs = staticmethod(fused_programs)

    @staticmethod
    def default_width(device: jax.Device) -> int:  # noqa: ARG004
        return FUSED_WIDTH
