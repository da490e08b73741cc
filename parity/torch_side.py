"""TransformerLens' answers, of whichever world is installed, by 3.9's names and in its layouts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch

from parity.question import EDITS, Question, Tensors, direction
from revinc import HookedTransformerConfig
from torch_reference import adapter
from torch_reference import objective as torch_objective


class TorchSide:
    """TransformerLens' model. Where it runs a norm three times, its gradients are summed, of those inputs that have
    the shape of the last, which is what a cache holds.
    """

    def __init__(
        self, model: torch.nn.Module, cfg: HookedTransformerConfig, question: Question, dtype: str
    ) -> None:
        self.model: Any = adapter.in_dtype(model, getattr(torch, dtype))
        self.cfg = cfg
        self.question = question
        self._tokens = torch.as_tensor(np.array(question.tokens), dtype=torch.long)
        self._predicted = torch.as_tensor(question.predicted)

    def nudged(self, seed: int) -> TorchSide:
        """The same model with every parameter moved by one float32 ulp, up or down at random."""
        other = copy.copy(self)
        other.model = adapter.in_dtype(self.model, next(self.model.parameters()).dtype)
        rng = np.random.default_rng(seed)
        with torch.no_grad():
            for parameter in other.model.parameters():
                towards = rng.choice([-np.inf, np.inf], size=tuple(parameter.shape))
                value = parameter.numpy().astype(np.float32)
                parameter.copy_(torch.from_numpy(np.nextafter(value, towards.astype(np.float32))))
        return other

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See `JaxSide.shapes`; all activations, those that 3.9 lacks too."""
        _, cache = self._run_with_cache()
        activations = {name: tuple(tensor.shape) for name, tensor in cache.items()}
        return adapter.shapes(self.model) | activations

    def forward(self) -> Tensors:
        """See `JaxSide.forward`."""
        logits, cache = self._run_with_cache()
        with torch.no_grad():
            logits_and_targets = torch_objective.predictions(
                self.model, self._tokens, self._predicted
            )
            losses = torch_objective.token_losses(*logits_and_targets)
        activations = {name: cache[name] for name in adapter.in_3_9(self.cfg, cache)}
        outputs = {"logits": cast(torch.Tensor, logits), "losses": losses}
        return {name: tensor.numpy() for name, tensor in (activations | outputs).items()}

    def gradients(self) -> Tensors:
        """See `JaxSide.gradients`. What the loss does not depend on has a gradient of zero."""
        by_activation = {name: torch.zeros_like(tensor) for name, tensor in self._floats().items()}

        def adding_up(name: str) -> Callable[[torch.Tensor, Any], None]:
            def add_up(gradient: torch.Tensor, hook: Any) -> None:  # noqa: ARG001
                if gradient.shape == by_activation[name].shape:
                    by_activation[name] += gradient.detach()

            return add_up

        self.model.zero_grad()
        with self.model.hooks(bwd_hooks=[(name, adding_up(name)) for name in by_activation]):
            torch_objective.mean_loss(self.model, self._tokens, self._predicted).backward()
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
        """See `JaxSide.interventions`."""
        return {name: self._edited(name) for name in self._floats()}

    def _floats(self) -> dict[str, torch.Tensor]:
        """The activations that 3.9 has, but for the tokens, which have no gradient and can't be edited by adding."""
        _, cache = self._run_with_cache()
        names = adapter.in_3_9(self.cfg, cache)
        return {name: cache[name] for name in names if cache[name].is_floating_point()}

    def _run_with_cache(self) -> Any:
        with torch.no_grad():
            return self.model.run_with_cache(self._tokens[:, :-1])

    def _edited(self, name: str) -> np.ndarray:
        """The logits after each of `EDITS` at a hook, all in one pass over repeated tokens."""
        batch, n_edits = len(self._tokens), len(EDITS)

        def apply(activation: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
            by_edit = activation.unflatten(0, (n_edits, batch))
            along = torch.as_tensor(direction(activation.shape[-1]), dtype=activation.dtype)
            edited = torch.stack(
                [
                    edit.keep * part + edit.other * torch.roll(part, -1, 0) + edit.add * along
                    for edit, part in zip(EDITS, by_edit, strict=True)
                ]
            )
            return torch.where(by_edit.isfinite(), edited, by_edit).flatten(0, 1)

        fed = self._tokens[:, :-1].repeat(n_edits, 1)
        with torch.no_grad():
            logits = self.model.run_with_hooks(fed, fwd_hooks=[(name, apply)])
        return cast(np.ndarray, logits.unflatten(0, (n_edits, batch)).numpy())
