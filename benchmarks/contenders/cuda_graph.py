"""The plain module's whole step recorded once as a CUDA graph, and replayed. Needs a GPU."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.contenders.torch_module import (
    as_module,
    device_in_words,
    load,
    make_adamw,
    peak_device_bytes,
)
from revinc import TrainConfig
from revinc.weights import StateDict

STEPS_BEFORE_CAPTURE = 3
"""torch asks for a few on a side stream, so that nothing is allocated or chosen while it records."""


class CudaGraph:
    """One model; a step copies its batch in place and replays the graph."""

    def __init__(self, cfg: TrainConfig, width: int) -> None:  # noqa: ARG002
        self.device = device_in_words()
        self._cfg = cfg
        self._module, self._tokens = as_module(cfg)

    def start(self, weights: StateDict) -> None:
        mine = {name: array[0] for name, array in weights.items()}
        load(self._module, mine)
        self._optimizer = make_adamw(self._module.parameters(), self._cfg, capturable=True)
        self._batch = self._tokens[: self._cfg.batch_size].clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(STEPS_BEFORE_CAPTURE):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self._optimizer.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = self._step()
        self._undo(mine)

    def _step(self) -> torch.Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._module(self._batch)
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def _undo(self, weights: StateDict) -> None:
        """Weights and moments as before the steps that were needed to record; in place, where the graph looks."""
        load(self._module, weights)
        for moments in self._optimizer.state.values():
            for moment in moments.values():
                moment.zero_()

    def advance(self, batches: np.ndarray) -> np.ndarray:
        losses = []
        for rows in torch.as_tensor(batches[0], dtype=torch.long, device="cuda"):
            self._batch.copy_(self._tokens[rows])
            self._graph.replay()
            losses.append(self._loss.clone())
        return torch.stack(losses).cpu().numpy()[None]

    def device_bytes(self) -> int | None:
        return peak_device_bytes()
