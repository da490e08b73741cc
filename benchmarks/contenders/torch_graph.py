"""The model in plain torch on a GPU: a whole training step, captured once as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.contenders.torch_module import (
    as_module,
    device_in_words,
    load,
    make_adamw,
    peak_device_bytes,
    torch_device,
)
from revinc import TrainConfig
from revinc.weights import StateDict

WARM_UP = 3
"""Steps before the capture, in which torch allocates what it needs."""


class GraphedStep:
    """One model: loss, gradient and AdamW are one CUDA graph, which is replayed for every step.

    Args:
        cfg: the training config.
        width: one.
        threads: of torch.
        captured: whether the step is captured, which needs CUDA; otherwise it runs one operation
            at a time.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        width: int = 1,  # noqa: ARG002
        threads: int = 1,
        captured: bool = True,
    ) -> None:
        torch.set_num_threads(threads)
        self.device = device_in_words()
        self._module, self._tokens = as_module(cfg)
        self._rows = torch.zeros(cfg.batch_size, dtype=torch.long, device=torch_device())
        self._optimizer = make_adamw(self._module.parameters(), cfg, capturable=captured)
        self._step = self._capture() if captured else self._update

    def _update(self) -> None:
        """Update the weights in place by the batch of `_rows`; the loss is in `_loss` then."""
        loss = self._module(self._tokens[self._rows])
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._loss = loss.detach()

    def _capture(self) -> Callable[[], None]:
        """Capture `_update`; return what replays it, on the same memory."""
        with torch.no_grad():
            for parameter in self._module.parameters():
                parameter.zero_()  # until `start` they have no values
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                self._update()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._update()
        return graph.replay

    def start(self, weights: StateDict) -> None:
        load(self._module, {name: array[0] for name, array in weights.items()})
        for moments in self._optimizer.state.values():  # in place, where the graph finds them
            for moment in moments.values():
                moment.zero_()

    def advance(self, batches: np.ndarray) -> np.ndarray:
        losses = []
        for rows in torch.as_tensor(batches[0], dtype=torch.long, device=torch_device()):
            self._rows.copy_(rows)
            self._step()
            losses.append(self._loss.clone())
        return torch.stack(losses).cpu().numpy()[None]

    def device_bytes(self) -> int | None:
        return peak_device_bytes()
