"""The tutorial's own loop on the installed TransformerLens, as `torch_reference` runs it."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.contenders.torch_module import peak_device_bytes
from revinc import TrainConfig
from revinc.weights import StateDict
from torch_reference import TorchEngine


class TutorialLoop:
    """One model, in place, the loss read after every step."""

    def __init__(self, cfg: TrainConfig, width: int, threads: int) -> None:  # noqa: ARG002
        torch.set_num_threads(threads)
        self._engine = TorchEngine(cfg)
        self.device = self._engine.device

    def start(self, weights: StateDict) -> None:
        self._state = self._engine.start({name: array[0] for name, array in weights.items()})

    def advance(self, batches: np.ndarray) -> np.ndarray:
        self._state, losses = self._engine.advance(self._state, batches[0])
        return losses[None]

    def device_bytes(self) -> int | None:
        return peak_device_bytes()
