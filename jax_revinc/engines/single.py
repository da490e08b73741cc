"""Engines that execute one run."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jax_revinc.engines.device import identity_on, in_words
from jax_revinc.engines.fused_programs import fused_programs
from jax_revinc.engines.programs import MakePrograms, as_metrics, make_recipe, padded
from jax_revinc.engines.xla import XlaPrograms
from jax_revinc.numerics import with_numerics
from jax_revinc.optimizer import optimizer_numbers
from revinc import TrainConfig
from revinc.dataset import make_dataset
from revinc.engine import chunk_capacity
from revinc.weights import StateDict, parameter_shapes


class XlaEngine:
    """See `revinc.engine.Engine`. Engines share their compiled programs: another seed or rate compiles nothing."""

    make_programs: MakePrograms = staticmethod(XlaPrograms)
    """What executes a recipe."""

    def __init__(self, train_cfg: TrainConfig) -> None:
        (device,) = jnp.zeros(()).devices()
        self.cfg = train_cfg.model
        self._data = make_dataset(train_cfg)
        _, rates = optimizer_numbers(train_cfg)
        self._rates = jax.tree.map(lambda rate: np.asarray(rate, self.cfg.dtype), rates)
        self._programs = self.make_programs(make_recipe(train_cfg, self._data), False)
        self._capacity = chunk_capacity(train_cfg)
        self.identity = {**self._programs.identity, **identity_on(device)}
        self.device = in_words(device)

    @with_numerics
    def start(self, weights: StateDict) -> Any:
        params = {name: jnp.asarray(weight) for name, weight in weights.items()}
        return self._programs.start(self._rates, params)

    @with_numerics
    def advance(
        self, state: Any, batches: Int[np.ndarray, "steps batch"]
    ) -> tuple[Any, Float[np.ndarray, " steps"]]:
        # Always the same shapes and the same program, so that chunking can't change a bit.
        tokens, rows = self._data.examples(padded(batches, self._capacity))
        state, losses = self._programs.advance(self._rates, state, tokens, rows, len(batches))
        return state, np.array(losses)[: len(batches)]

    @with_numerics
    def evaluate(self, state: Any) -> dict[str, float]:
        data = self._data
        masks = np.stack([data.train_mask, data.holdout_mask])
        counted = self._programs.count(state, data.tokens, masks)
        return {name: float(values) for name, values in as_metrics(counted, data).items()}

    def weights(self, state: Any) -> StateDict:
        params = self._programs.params(state)
        return {name: np.array(params[name]) for name in parameter_shapes(self.cfg)}

    def to_arrays(self, state: Any) -> dict[str, np.ndarray]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(state)
        return {jax.tree_util.keystr(path): np.array(leaf) for path, leaf in leaves}

    @with_numerics
    def from_arrays(self, arrays: dict[str, np.ndarray]) -> Any:
        shapes = {
            name: jax.ShapeDtypeStruct(shape, self.cfg.dtype)
            for name, shape in parameter_shapes(self.cfg).items()
        }
        template = jax.eval_shape(self._programs.start, self._rates, shapes)
        return jax.tree_util.tree_map_with_path(
            lambda path, _: jnp.asarray(arrays[jax.tree_util.keystr(path)]), template
        )


class FusedEngine(XlaEngine):
    """`XlaEngine`, but that losses, gradients, updates and evaluations are one generated program, an example per lane.

    Raises:
        NotFusible: where the model or its optimizer can't be fused.
        CannotBuild: where nothing can be compiled.
    """

    make_programs = staticmethod(fused_programs)
