"""Models side by side in JAX: the engine of ``jax-revinc population``, on one or more devices."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from benchmarks.contenders.jax_single import peak_device_bytes
from jax_revinc.compilation.compilation_cache import enable_compilation_cache
from jax_revinc.engines import PROGRAMS, JaxPopulation
from jax_revinc.engines.compiled_programs import make_program_key
from jax_revinc.population.processes import use_cpu_devices
from revinc import TrainConfig, UserError
from revinc.dataset import make_dataset
from revinc.weights import StateDict


class PopulationTrainer:
    """A program of the same width on every device, and a thread for each device that waits for it.

    Args:
        cfg: the training config.
        width: models, on all devices together.
        devices: how many; a CPU counts as that many.
        engine: one of `jax_revinc.engines.PROGRAMS`.
        cores: how many this process may use; all by default.

    Raises:
        UserError: if the models can't be shared out evenly.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        width: int,
        devices: int = 1,
        engine: str = "xla",
        cores: int | None = None,
    ) -> None:
        if cores is not None:  # before JAX counts them
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
        use_cpu_devices(devices)
        enable_compilation_cache()
        self._devices = jax.local_devices()[:devices]
        each, rest = divmod(width, len(self._devices))
        if rest:
            raise UserError(f"{width} models can't be shared out evenly to {devices} devices")
        programs = PROGRAMS[engine](make_program_key(cfg), many=True)
        self._engines = [JaxPopulation(cfg, programs, each, device) for device in self._devices]
        self._data = [make_dataset(cfg.with_seed(seed)) for seed in range(width)]
        self._shares = [slice(i * each, (i + 1) * each) for i in range(len(self._devices))]
        self._pool = ThreadPoolExecutor(len(self._devices))
        self.device = f"{self._engines[0].device}, {len(self._devices)} of them"

    def start(self, weights: StateDict) -> None:
        def start_one(engine: JaxPopulation, share: slice) -> Any:
            mine = {name: array[share] for name, array in weights.items()}
            return engine.start(self._data[share], mine)

        self._states = list(self._pool.map(start_one, self._engines, self._shares))

    def advance(self, batches: np.ndarray) -> np.ndarray:
        def advance_one(engine: JaxPopulation, state: Any, share: slice) -> Any:
            return engine.advance(state, batches[share])

        advanced = list(self._pool.map(advance_one, self._engines, self._states, self._shares))
        self._states = [state for state, _ in advanced]
        return np.concatenate([losses for _, losses in advanced])

    def device_bytes(self) -> int | None:
        return peak_device_bytes(self._devices)
