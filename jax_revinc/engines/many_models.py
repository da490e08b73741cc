"""The engine that trains many models side by side, on one device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.compilation.numerical_settings import numerics
from jax_revinc.engines.compiled_programs import Programs, as_metrics, pad_rows
from jax_revinc.engines.device import identity_on, in_words
from jax_revinc.optimizer import Hyperparameters, optimizer_settings
from revinc import TrainConfig
from revinc.dataset import Dataset
from revinc.engine import chunk_capacity
from revinc.validation import require_int
from revinc.weights import StateDict, parameter_shapes

CPU_WIDTH = 128
"""XLA's default width on a CPU: a wider program is not faster per model."""

WIDTH = 4096
"""XLA's default width on other devices, where a step of few models takes as long as one of many."""

FUSED_WIDTH = 512
"""The fused engine's default width: it spreads the cost of the work between chunks."""


class Running(NamedTuple):
    """The data and training states of models that are trained side by side. If they are fewer than
    the compiled program trains, copies of the last one fill it up.

    Attributes:
        data: the dataset of each run.
        hyperparameters: the traced numbers of the optimizers [models].
        tokens: the sequences of an evaluation.
        masks: which sequences are of the training split, and which of the holdout split.
        state: the state of the programs.
    """

    data: Sequence[Dataset]
    hyperparameters: Hyperparameters
    tokens: Int[Array | np.ndarray, "*models n_sequences seq"]
    masks: Bool[Array, "models splits n_sequences"]
    state: Any


class JaxPopulation:
    """An engine that trains many models side by side by compiled programs. See
    `revinc.engine.PopulationEngine`.

    The program always has the same width, however few models are left, and each device runs its own
    program, because XLA compiles a program for two devices differently than for one. So a model's
    bits depend neither on its neighbours and its place, nor on the number of devices.

    Args:
        cfg: the training config; the runs may differ from it in hyperparameters, split and seeds.
        programs: those of its key, for many models.
        width: models side by side; by default what suits the programs and the device.
        device: by default the first of this process.

    Raises:
        UserError: for a width below 1.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        programs: Programs,
        width: int | None = None,
        device: jax.Device | None = None,
    ) -> None:
        device = jax.local_devices()[0] if device is None else device
        width = default_width(programs, device) if width is None else width
        self.width = require_int("width", width, at_least=1, below=2**31)
        self.cfg = cfg
        self.identity = {
            **programs.identity,
            **identity_on(device),
            "width": str(self.width),
        }
        self.device = in_words(device)
        self._device = device
        self._programs = programs
        self._capacity = chunk_capacity(cfg)

    def start(self, data: Sequence[Dataset], weights: StateDict) -> Running:
        model = self.cfg.model
        numbers = [optimizer_settings(of_run.cfg)[1] for of_run in data]
        hyperparameters = jax.tree.map(lambda *each: np.array(each, model.dtype), *numbers)
        masks = np.stack([[of_run.train_mask, of_run.holdout_mask] for of_run in data])
        params = {name: weights[name] for name in parameter_shapes(model)}
        with numerics(model):
            tokens = self._tokens([of_run.tokens for of_run in data])
            hyperparameters, masks, params = jax.tree.map(
                self._fill_up, (hyperparameters, masks, params)
            )
            state = self._programs.start(hyperparameters, params)
        return Running(data, hyperparameters, tokens, masks, state)

    def advance(
        self, running: Running, rows: Int[np.ndarray, "models steps batch"]
    ) -> tuple[Running, Float[np.ndarray, "models steps"]]:
        n_models, n_steps, _ = rows.shape
        each = zip(running.data, pad_rows(rows, self._capacity), strict=True)
        tokens, examples = zip(*(data.examples(of_run) for data, of_run in each), strict=True)
        with numerics(self.cfg.model):
            state, losses = self._programs.advance(
                running.hyperparameters,
                running.state,
                self._tokens(tokens),
                self._fill_up(np.stack(examples)),
                n_steps,
            )
            return running._replace(state=state), np.asarray(losses)[:n_models, :n_steps]

    def evaluate(self, running: Running) -> dict[str, Float[np.ndarray, " models"]]:
        with numerics(self.cfg.model):
            counted = self._programs.count(running.state, running.tokens, running.masks)
        n_models = len(running.data)
        metrics = as_metrics(counted, running.data[0])  # all splits are of the same size
        return {name: values[:n_models] for name, values in metrics.items()}

    def weights(self, running: Running) -> StateDict:
        params, n_models = self._programs.params(running.state), len(running.data)
        return {
            name: np.array(params[name])[:n_models] for name in parameter_shapes(self.cfg.model)
        }

    def _tokens(
        self, each: Sequence[Int[np.ndarray, "n_sequences seq"]]
    ) -> Int[Array | np.ndarray, "*models n_sequences seq"]:
        """The token sequences of all models: one array per model if models differ in them, else one
        array that all share.
        """
        return self._fill_up(np.stack(each)) if self.cfg.task.is_drawn else each[0]

    def _fill_up(self, of_models: np.ndarray) -> Array:
        """Put an array with one row per model on the device. Copies of the last row fill it up to
        the number of models in the compiled program.
        """
        places = np.minimum(np.arange(self.width), len(of_models) - 1)
        return jax.device_put(of_models[places], self._device)


def default_width(programs: Programs, device: jax.Device) -> int:
    """The default number of models that a compiled program trains side by side on a device."""
    if programs.identity["name"] == "fused":
        return FUSED_WIDTH
    return CPU_WIDTH if device.platform == "cpu" else WIDTH
