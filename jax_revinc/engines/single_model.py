"""The engine that trains one model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jax_revinc.compilation.numerical_settings import numerics
from jax_revinc.engines.compiled_programs import Programs, as_metrics, pad_rows, parameter_structs
from jax_revinc.engines.device import identity_on, in_words
from jax_revinc.optimizer import optimizer_settings
from revinc import TrainConfig
from revinc.dataset import Dataset, make_dataset
from revinc.engine import chunk_capacity
from revinc.weights import StateDict, parameter_shapes


class JaxEngine:
    """An engine that trains one model by compiled programs. See `revinc.engine.Engine`.

    Args:
        cfg: the training config.
        programs: those of its key, for one model.
        data: its dataset; made from `cfg` by default.
    """

    def __init__(self, cfg: TrainConfig, programs: Programs, data: Dataset | None = None) -> None:
        self.cfg = cfg
        with numerics(cfg.model):
            (device,) = jnp.zeros(()).devices()
        self.identity = {**programs.identity, **identity_on(device)}
        self.device = in_words(device)
        self._programs = programs
        self._data = data or make_dataset(cfg)
        self._capacity = chunk_capacity(cfg)
        _, hyperparameters = optimizer_settings(cfg)
        self._hyperparameters = jax.tree.map(
            lambda number: np.asarray(number, cfg.model.dtype), hyperparameters
        )

    def start(self, weights: StateDict) -> Any:
        with numerics(self.cfg.model):
            params = {name: jnp.asarray(weight) for name, weight in weights.items()}
            return self._programs.start(self._hyperparameters, params)

    def advance(
        self, state: Any, rows: Int[np.ndarray, "steps batch"]
    ) -> tuple[Any, Float[np.ndarray, " steps"]]:
        # Always the same shapes, so the same program: chunking can't change a bit.
        n_steps = len(rows)
        tokens, rows = self._data.examples(pad_rows(rows, self._capacity))
        with numerics(self.cfg.model):
            advance = self._programs.advance
            state, losses = advance(self._hyperparameters, state, tokens, rows, n_steps)
            return state, np.array(losses)[:n_steps]

    def evaluate(self, state: Any) -> dict[str, float]:
        data = self._data
        masks = np.stack([data.train_mask, data.holdout_mask])
        with numerics(self.cfg.model):
            counted = self._programs.count(state, data.tokens, masks)
        return {name: float(value) for name, value in as_metrics(counted, data).items()}

    def weights(self, state: Any) -> StateDict:
        params = self._programs.params(state)
        return {name: np.array(params[name]) for name in parameter_shapes(self.cfg.model)}

    def to_arrays(self, state: Any) -> dict[str, np.ndarray]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(state)
        return {jax.tree_util.keystr(path): np.array(leaf) for path, leaf in leaves}

    def from_arrays(self, arrays: dict[str, np.ndarray]) -> Any:
        params = parameter_structs(self.cfg.model)
        with numerics(self.cfg.model):
            template = jax.eval_shape(self._programs.start, self._hyperparameters, params)
            return jax.tree_util.tree_map_with_path(
                lambda path, _: jnp.asarray(arrays[jax.tree_util.keystr(path)]), template
            )
