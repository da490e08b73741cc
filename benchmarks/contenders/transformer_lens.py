"""The tutorial's own loop on the installed TransformerLens, as `torch_reference` runs it."""

from __future__ import annotations

import torch

from benchmarks.contender import OneRun
from benchmarks.contenders.torch_module import peak_device_bytes
from revinc import TrainConfig
from torch_reference import TorchEngine


class TutorialLoop(OneRun):
    """One model, in place, the loss read after every step."""

    def __init__(self, cfg: TrainConfig, width: int, threads: int) -> None:  # noqa: ARG002
        torch.set_num_threads(threads)
        super().__init__(TorchEngine(cfg))

    def device_bytes(self) -> int | None:
        return peak_device_bytes()
