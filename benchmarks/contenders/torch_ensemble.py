"""Models side by side in plain torch: ``torch.func.vmap`` over their stacked weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from benchmarks.contenders.torch_module import (
    as_module,
    device_in_words,
    make_adamw,
    peak_device_bytes,
    torch_device,
)
from revinc import TrainConfig
from revinc.weights import StateDict, parameter_shapes


class EagerEnsemble:
    """One operation at a time, each on all models; one fused AdamW on the stacked weights."""

    def __init__(self, cfg: TrainConfig, width: int, threads: int) -> None:  # noqa: ARG002
        torch.set_num_threads(threads)
        self.device = device_in_words()
        self._cfg = cfg
        module, self._tokens = as_module(cfg)
        buffers = dict(module.named_buffers())

        def loss(params: dict[str, Tensor], sequences: Tensor) -> Tensor:
            given = {f"model.{name}": array for name, array in params.items()}
            return functional_call(module, (given, buffers), (sequences,))

        self._gradients_and_losses = vmap(grad_and_value(loss))

    def start(self, weights: StateDict) -> None:
        self._params = {
            name: torch.tensor(array, device=torch_device(), requires_grad=True)
            for name, array in weights.items()
        }
        self._optimizer = make_adamw(self._params.values(), self._cfg)

    @torch.no_grad()
    def advance(self, batches: np.ndarray) -> np.ndarray:
        losses = []
        for rows in by_step(batches):
            params = {name: param.detach() for name, param in self._params.items()}
            gradients, loss = self._gradients_and_losses(params, self._tokens[rows])
            for name, param in self._params.items():
                param.grad = gradients[name]
            self._optimizer.step()
            losses.append(loss)
        return torch.stack(losses, dim=1).cpu().numpy()

    def device_bytes(self) -> int | None:
        return peak_device_bytes()


class CompiledEnsemble:
    """A whole step, optimizer included, as one program of ``torch.compile``: the best form found.

    All weights of a model are one row of a matrix, so that AdamW is one loop over it, and the
    program is called from C++ (``cpp_wrapper``). On two CPU cores, for one model, that was 1.7
    times as fast as without ``cpp_wrapper``, and 5 times as fast as compiling the loss alone.
    "max-autotune" and "reduce-overhead" change nothing on a CPU, which has neither CUDA graphs nor
    other kernels to choose from. A GPU gets "max-autotune", CUDA graphs included.

    Args:
        cfg: the training config.
        width: models.
        threads: of torch.
        compiled: whether the step is compiled; otherwise it runs one operation at a time.
    """

    def __init__(
        self, cfg: TrainConfig, width: int = 1, threads: int = 1, compiled: bool = True
    ) -> None:
        torch.set_num_threads(threads)
        self.device = device_in_words()
        _, self._tokens = as_module(cfg)
        self._shapes = parameter_shapes(cfg.model)
        on_cpu = torch_device() == "cpu"
        best: dict[str, Any] = (
            {"options": {"cpp_wrapper": True}} if on_cpu else {"mode": "max-autotune"}
        )
        self._one = width == 1
        step = make_step(cfg, self._one)
        self._step = torch.compile(step, fullgraph=True, **best) if compiled else step

    def start(self, weights: StateDict) -> None:
        rows = [weights[name].reshape(len(weights[name]), -1) for name in self._shapes]
        flat = torch.tensor(np.concatenate(rows, axis=1), device=torch_device())
        flat = flat[0] if self._one else flat
        count = torch.zeros((), dtype=flat.dtype, device=flat.device)
        self._state = (flat, torch.zeros_like(flat), torch.zeros_like(flat), count)

    @torch.no_grad()
    def advance(self, batches: np.ndarray) -> np.ndarray:
        steps = by_step(batches)
        losses = [
            self._step(*self._state, self._tokens[rows[0] if self._one else rows]).clone()
            for rows in steps
        ]
        return torch.stack(losses, dim=-1).reshape(len(batches), len(steps)).cpu().numpy()

    def device_bytes(self) -> int | None:
        return peak_device_bytes()


def make_step(cfg: TrainConfig, one: bool) -> Callable[..., Tensor]:
    """AdamW's step, in place, on models that are rows of a matrix (or on `one`, a vector)."""
    module, _ = as_module(cfg)
    buffers = dict(module.named_buffers())
    shapes = parameter_shapes(cfg.model)
    sizes = [int(np.prod(shape)) for shape in shapes.values()]

    def loss(flat: Tensor, sequences: Tensor) -> Tensor:
        parts = zip(shapes.items(), flat.split(sizes), strict=True)
        given = {f"model.{name}": part.view(shape) for (name, shape), part in parts}
        return functional_call(module, (given, buffers), (sequences,))

    gradients_and_losses = grad_and_value(loss) if one else vmap(grad_and_value(loss))

    def step(flat: Tensor, mean: Tensor, square: Tensor, count: Tensor, batch: Tensor) -> Tensor:
        gradient, losses = gradients_and_losses(flat, batch)
        count.add_(1)
        mean.lerp_(gradient, 1 - cfg.b1)
        square.mul_(cfg.b2).addcmul_(gradient, gradient, value=1 - cfg.b2)
        scale = (square / (1 - cfg.b2**count)).sqrt() + cfg.adam_eps
        flat.mul_(1 - cfg.lr * cfg.weight_decay)
        flat.sub_(cfg.lr / (1 - cfg.b1**count) * mean / scale)
        return losses

    return step


def by_step(batches: np.ndarray) -> Tensor:
    """Batches [models, steps, batch] as a tensor [steps, models, batch]."""
    return torch.as_tensor(batches.swapaxes(0, 1).copy(), dtype=torch.long, device=torch_device())
