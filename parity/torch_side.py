"""The torch side of the parity check: TransformerLens' tensors, by their names in version 3.9."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Int

from parity.inputs import EDITS, UNLIKELY_LOSSES, Inputs, Tensors, direction
from parity.jitter import jitter
from revinc import HookedTransformerConfig
from torch_reference import adapter
from torch_reference import objective as torch_objective

MOST_ROWS = 4096
"""The most sequences that an intervention's forward pass is fed: several hooks' edits at once."""


class TorchSide:
    """The TransformerLens model of a parity check, and what it computes on the inputs.

    Where it runs a norm three times, the gradients are summed over the inputs that have the shape
    of the last, which is the one that a cache holds.

    Args:
        model: the model; it is copied into `dtype`.
        cfg: our config of it.
        inputs: the tokens, and the positions whose loss counts.
        unlikely: at each of these positions the token to take the loss of, from `least_likely`.
        dtype: "float32" or "float64".
    """

    def __init__(
        self,
        model: torch.nn.Module,
        cfg: HookedTransformerConfig,
        inputs: Inputs,
        unlikely: Int[np.ndarray, "batch n_predicted"],
        dtype: str,
    ) -> None:
        self.model: Any = adapter.in_dtype(model, getattr(torch, dtype))
        self.cfg = cfg
        self.inputs = inputs
        self._tokens = torch.as_tensor(np.array(inputs.tokens), dtype=torch.long)
        self._predicted = torch.as_tensor(inputs.predicted)
        self._unlikely = torch.as_tensor(unlikely)

    @contextmanager
    def jittered(self, seed: int) -> Iterator[None]:
        """Within it, every parameter is moved by one unit in the last place of float32, at random."""
        rng = np.random.default_rng(seed)
        parameters = list(self.model.parameters())
        before = [parameter.detach().clone() for parameter in parameters]
        moved = [
            torch.from_numpy(jitter(value.numpy().astype(np.float32), rng)) for value in before
        ]
        self._set(parameters, moved)
        try:
            yield
        finally:
            self._set(parameters, before)

    @staticmethod
    def _set(parameters: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(value)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all parameters and activations, also of those that only version 4.x has."""
        _, cache = self._run_with_cache()
        activations = {name: tuple(tensor.shape) for name, tensor in cache.items()}
        return {name: weight.shape for name, weight in self.weights().items()} | activations

    def weights(self) -> Tensors:
        """The model's parameters, by the names and in the layouts of TransformerLens 3.9."""
        with torch.no_grad():
            return {name: p.numpy() for name, p in adapter.parameters(self.model).items()}

    def forward(self) -> Tensors:
        """Every activation in execution order, then the logits, then the losses."""
        logits, cache = self._run_with_cache()
        with torch.no_grad():
            predictions, targets = self._predictions()
            losses = torch_objective.token_losses(predictions, targets)
            unlikely = torch_objective.token_losses(predictions, self._unlikely)
        activations = {name: cache[name] for name in adapter.in_3_9(self.cfg, cache)}
        outputs = {
            "logits": cast(torch.Tensor, logits),
            "losses": losses,
            UNLIKELY_LOSSES: unlikely,
        }
        return {name: tensor.numpy() for name, tensor in (activations | outputs).items()}

    def gradients(self, rng: np.random.Generator | None = None) -> Tensors:
        """Gradients of the mean loss on the least likely tokens, by activation and parameter.

        A gradient is zero where the loss does not depend on the tensor.

        Args:
            rng: moves every number of a gradient at every hook by an ulp at most, at random; by
                default nothing is moved.
        """
        by_activation = {name: torch.zeros_like(tensor) for name, tensor in self._floats().items()}

        def adding_up(name: str) -> Callable[[torch.Tensor, Any], None]:
            def add_up(gradient: torch.Tensor, hook: Any) -> None:  # noqa: ARG001
                if gradient.shape == by_activation[name].shape:
                    by_activation[name] += gradient.detach()

            return add_up

        def move(gradient: torch.Tensor) -> torch.Tensor:
            assert rng is not None
            shares = torch.from_numpy(rng.uniform(-1, 1, tuple(gradient.shape)))
            return gradient * (1 + torch.finfo(gradient.dtype).eps * shares.to(gradient.dtype))

        def move_later(activation: torch.Tensor, hook: Any) -> None:  # noqa: ARG001
            if activation.requires_grad:
                activation.register_hook(move)

        self.model.zero_grad()
        with self.model.hooks(
            fwd_hooks=[(name, move_later) for name in by_activation if rng],
            bwd_hooks=[(name, adding_up(name)) for name in by_activation],
        ):
            predictions, _ = self._predictions()
            torch_objective.token_losses(predictions, self._unlikely).mean().backward()
        by_parameter = {
            name: torch.zeros_like(parameter)
            if parameter.grad is None
            else adapter.to_3_9(self.cfg, name, parameter.grad)
            for name, parameter in adapter.trainable(self.model, self.cfg).items()
        }
        return {
            name: tensor.detach().numpy().copy()
            for name, tensor in (by_activation | by_parameter).items()
        }

    def interventions(self) -> Tensors:
        """The logits after each edit of an activation: [edit, batch, pos, d_vocab_out], by hook."""
        names = list(self._floats())
        n_at_once = max(1, MOST_ROWS // (len(EDITS) * len(self._tokens)))
        parts = [names[i : i + n_at_once] for i in range(0, len(names), n_at_once)]
        return {name: logits for part in parts for name, logits in self._edited(part).items()}

    def _floats(self) -> dict[str, torch.Tensor]:
        """The activations that TransformerLens 3.9 has, by hook name; without token ids."""
        _, cache = self._run_with_cache()
        names = adapter.in_3_9(self.cfg, cache)
        return {name: cache[name] for name in names if cache[name].is_floating_point()}

    def _predictions(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch_objective.predictions(self.model, self._tokens, self._predicted)

    def _run_with_cache(self) -> Any:
        with torch.no_grad():
            return self.model.run_with_cache(self._tokens[:, :-1])

    def _edited(self, names: Sequence[str]) -> Tensors:
        """The logits after each edit of some activations, from one pass over repeated tokens."""
        parts = (len(names), len(EDITS), len(self._tokens))

        def edit_at(place: int) -> Callable[[torch.Tensor, Any], torch.Tensor]:
            def apply(activation: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
                changed = activation.clone()
                part = changed.unflatten(0, parts)[place]
                part.copy_(torch.where(part.isfinite(), edited(part), part))
                return changed

            return apply

        fed = self._tokens[:, :-1].repeat(len(names) * len(EDITS), 1)
        hooks = [(name, edit_at(place)) for place, name in enumerate(names)]
        with torch.no_grad():
            logits = self.model.run_with_hooks(fed, fwd_hooks=hooks)
        by_name = cast(np.ndarray, logits.unflatten(0, parts).numpy())
        return dict(zip(names, by_name, strict=True))


def edited(activations: torch.Tensor) -> torch.Tensor:
    """An activation after each edit: the first axis is that of the edits."""
    along = torch.as_tensor(direction(activations.shape[-1]), dtype=activations.dtype)
    return torch.stack(
        [
            edit.keep * activation + edit.other * torch.roll(activation, -1, 0) + edit.add * along
            for edit, activation in zip(EDITS, activations, strict=True)
        ]
    )


def least_likely(model: torch.nn.Module, inputs: Inputs) -> Int[np.ndarray, "batch n_predicted"]:
    """The token that TransformerLens in float64 finds least likely, at every predicted position.

    A model that is sure of the right token has a loss and a gradient near 0: differences of nearly
    equal numbers, which keep few digits or none. The least likely of k tokens has a probability of
    1 / k at most, so its loss and gradient keep all digits.
    """
    tokens = torch.as_tensor(np.array(inputs.tokens), dtype=torch.long)
    with torch.no_grad():
        logits, _ = torch_objective.predictions(
            adapter.in_dtype(model, torch.float64), tokens, torch.as_tensor(inputs.predicted)
        )
    return logits[..., : int(inputs.tokens.max()) + 1].argmin(-1).numpy()
