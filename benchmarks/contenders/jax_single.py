"""One model in JAX: a call per step, or the engine's compiled loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contender import OneRun
from jax_revinc.compilation.compilation_cache import enable_compilation_cache
from jax_revinc.compilation.numerical_settings import numerics
from jax_revinc.engines import PROGRAMS, JaxEngine, make_engine
from jax_revinc.engines.compiled_programs import make_program_key
from jax_revinc.engines.device import in_words
from jax_revinc.engines.fused_engine import optax_programs
from jax_revinc.engines.xla import State, update
from jax_revinc.optimizer import optimizer_settings
from revinc import TrainConfig
from revinc.dataset import make_dataset
from revinc.objective import make_objective
from revinc.weights import StateDict

CONTENDING = {**PROGRAMS, "optax": optax_programs}
"""What makes the programs of an engine, by name; ``optax`` is XLA's loop around a fused gradient."""


class CompiledLoop(OneRun):
    """An engine, one of `CONTENDING`: a chunk of steps per call, as ``jax-revinc train`` does."""

    def __init__(self, cfg: TrainConfig, width: int = 1, engine: str = "xla") -> None:  # noqa: ARG002
        enable_compilation_cache()
        programs = CONTENDING[engine](make_program_key(cfg), many=False)
        super().__init__(JaxEngine(cfg, programs))

    def device_bytes(self) -> int | None:
        return peak_device_bytes(jax.local_devices())


class StepByStep:
    """The same update, compiled alone, and called for every step; losses are read at the end."""

    def __init__(self, cfg: TrainConfig, width: int = 1) -> None:  # noqa: ARG002
        enable_compilation_cache()
        self._engine = make_engine(cfg)
        self.device = in_words(jax.local_devices()[0])
        self._cfg = cfg.model
        self._data = make_dataset(cfg)
        objective = make_objective(cfg)
        fixed, rates = optimizer_settings(cfg)

        def step(state: State, tokens: jax.Array, rows: jax.Array) -> tuple[State, jax.Array]:
            return update(cfg.model, fixed, objective, rates, state, tokens[rows])

        self._step = jax.jit(step, donate_argnums=0)

    def start(self, weights: StateDict) -> None:
        self._state = self._engine.start({name: array[0] for name, array in weights.items()})

    def advance(self, batches: np.ndarray) -> np.ndarray:
        losses = []
        sequences, rows_of_steps = self._data.examples(batches[0].astype(np.int32))
        with numerics(self._cfg):
            tokens = jnp.asarray(sequences)
            for rows in rows_of_steps:
                self._state, loss = self._step(self._state, tokens, rows)
                losses.append(loss)
        return np.array(jax.device_get(losses))[None]

    def device_bytes(self) -> int | None:
        return peak_device_bytes(jax.local_devices())


def peak_device_bytes(devices: list[jax.Device]) -> int | None:
    """The peak memory of these devices together, if they tell it."""
    stats = [device.memory_stats() or {} for device in devices]
    peaks = [of_device["peak_bytes_in_use"] for of_device in stats if of_device]
    return sum(peaks) if peaks else None
