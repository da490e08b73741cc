"""One model in each framework, asked the same questions: activations, gradients, interventions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformer_lens
from jax import Array
from jaxtyping import Int

from jax_revinc import HookedTransformer, numerics
from jax_revinc.model import hook_names
from jax_revinc.objective import token_losses
from torch_reference import objective as torch_objective

Tensors = dict[str, np.ndarray]
Params = dict[str, Array]


@dataclass(frozen=True, eq=False)
class Question:
    """What both models are asked about.

    Attributes:
        tokens: whole sequences; the models are fed all but the last token.
        predicted: the positions whose token's loss counts; never the first.
    """

    tokens: Int[np.ndarray, "batch seq"]
    predicted: tuple[int, ...]


@dataclass(frozen=True)
class Edit:
    """What an intervention does to the finite entries of an activation.

    They become ``keep * activation + other * (the activation on the next input) + add * direction``,
    where the direction is a fixed vector along the last axis.
    """

    name: str
    keep: float = 0.0
    other: float = 0.0
    add: float = 0.0


EDITS = (
    Edit("zero"),
    Edit("replace by another input's", other=1.0),
    Edit("scale", keep=1.7),
    Edit("add a vector", keep=1.0, add=1.0),
)


def direction(width: int) -> np.ndarray:
    """The vector that an intervention adds, float32 numbers in [-1, 1]."""
    return np.cos(np.arange(1, width + 1, dtype=np.float64)).astype(np.float32)


class JaxSide:
    """Our model."""

    def __init__(self, model: HookedTransformer, question: Question, dtype: str) -> None:
        self.cfg = model.cfg.replace(dtype=dtype)
        self.params = {name: weight.astype(dtype) for name, weight in model.state_dict().items()}
        self.question = question
        self._names = hook_names(self.cfg)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the parameters and, on the question's tokens, of the activations."""
        activations = {n: a.shape for n, a in self.forward().items() if n in self._names}
        return {name: param.shape for name, param in self.params.items()} | activations

    def forward(self) -> Tensors:
        """Every activation in execution order, then the logits and every counted token's loss."""

        def forward(params: Params) -> Params:
            logits, cache = self._model(params).run_with_cache(self._fed)
            return {
                **cache,
                "logits": logits,
                "losses": self._losses(logits),
            }

        return self._run(forward)

    def gradients(self) -> Tensors:
        """Gradients of the mean loss with respect to every activation, then every parameter."""

        def loss(params: Params, shifts: Params) -> Array:
            def shift(name: str, activation: Array) -> Array:
                return activation + shifts[name]

            return self._losses(self._model(params)(self._fed, tap=shift)).mean()

        def gradients(params: Params) -> Params:
            _, cache = self._model(params).run_with_cache(self._fed)
            zeros = {name: jnp.zeros_like(activation) for name, activation in cache.items()}
            by_parameter, by_activation = jax.grad(loss, argnums=(0, 1))(params, zeros)
            return by_activation | by_parameter

        return self._run(gradients)

    def interventions(self) -> Tensors:
        """For every hook, the logits after each of `EDITS` there: [edit, batch, pos, d_vocab_out]."""

        def edited_logits(params: Params, hook: Array, edit: Array) -> Array:
            keep, other, add = edit

            def tap(name: str, activation: Array) -> Array:
                along = jnp.asarray(direction(activation.shape[-1]), activation.dtype)
                edited = keep * activation + other * jnp.roll(activation, -1, 0) + add * along
                touched = (hook == self._names.index(name)) & jnp.isfinite(activation)
                return jnp.where(touched, edited, activation)

            return self._model(params)(self._fed, tap=tap)

        def sweep(params: Params) -> Params:
            edits = jnp.array([(edit.keep, edit.other, edit.add) for edit in EDITS], self.cfg.dtype)
            by_edit = jax.vmap(edited_logits, in_axes=(None, None, 0))
            logits = jax.lax.map(
                lambda hook: by_edit(params, hook, edits), jnp.arange(len(self._names))
            )
            return dict(zip(self._names, logits, strict=True))

        return self._run(sweep)

    @property
    def _fed(self) -> Int[np.ndarray, "batch pos"]:
        return self.question.tokens[:, :-1]

    def _model(self, params: Params) -> HookedTransformer:
        return HookedTransformer(self.cfg, params=params)

    def _losses(self, logits: Array) -> Array:
        predicted = np.array(self.question.predicted)
        targets = jnp.asarray(self.question.tokens)[:, predicted]
        return token_losses(logits[:, predicted - 1], targets)

    def _run(self, function: Callable[[Params], Params]) -> Tensors:
        with numerics(self.cfg):
            outputs = jax.jit(function)(self.params)
        in_order = sorted(outputs, key=self._order)
        return {name: np.asarray(outputs[name]) for name in in_order}

    def _order(self, name: str) -> int:
        """Activations in execution order, then everything else (jit returns dicts sorted by key)."""
        return self._names.index(name) if name in self._names else len(self._names)


class TorchSide:
    """TransformerLens' model. Where 3.9 runs a norm three times, its gradients are summed."""

    def __init__(
        self, model: transformer_lens.HookedTransformer, question: Question, dtype: str
    ) -> None:
        self.model = copy.deepcopy(model).to(getattr(torch, dtype), print_details=False)
        self.model.cfg.dtype = getattr(torch, dtype)
        self.question = question
        self._tokens = torch.as_tensor(np.array(question.tokens), dtype=torch.long)
        self._predicted = torch.as_tensor(question.predicted)

    def nudged(self, seed: int) -> TorchSide:
        """The same model with every parameter moved by one float32 ulp, up or down at random."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        rng = np.random.default_rng(seed)
        with torch.no_grad():
            for parameter in other.model.parameters():
                towards = rng.choice([-np.inf, np.inf], size=tuple(parameter.shape))
                value = parameter.numpy().astype(np.float32)
                parameter.copy_(torch.from_numpy(np.nextafter(value, towards.astype(np.float32))))
        return other

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See `JaxSide.shapes`."""
        with torch.no_grad():
            _, cache = self.model.run_with_cache(self._tokens[:, :-1])
        parameters = {name: tuple(p.shape) for name, p in self.model.named_parameters()}
        return parameters | {name: tuple(a.shape) for name, a in cache.cache_dict.items()}

    def forward(self) -> Tensors:
        """See `JaxSide.forward`."""
        with torch.no_grad():
            logits, cache = self.model.run_with_cache(self._tokens[:, :-1])
            logits_and_targets = torch_objective.predictions(
                self.model, self._tokens, self._predicted
            )
            losses = torch_objective.token_losses(*logits_and_targets)
        outputs = {"logits": cast(torch.Tensor, logits), "losses": losses}
        return {name: tensor.numpy() for name, tensor in (cache.cache_dict | outputs).items()}

    def gradients(self) -> Tensors:
        """See `JaxSide.gradients`."""
        by_activation: dict[str, torch.Tensor] = {}

        def add_up(gradient: torch.Tensor, hook: Any) -> None:
            by_activation[hook.name] = by_activation.get(hook.name, 0) + gradient.detach()

        self.model.zero_grad()
        with self.model.hooks(bwd_hooks=[(lambda _: True, add_up)]):
            torch_objective.mean_loss(self.model, self._tokens, self._predicted).backward()
        in_order = {n: by_activation[n] for n in self.model.hook_dict if n in by_activation}
        by_parameter = {name: p.grad for name, p in self.model.named_parameters()}
        tensors = cast(dict[str, torch.Tensor], in_order | by_parameter)
        return {name: tensor.numpy().copy() for name, tensor in tensors.items()}

    def interventions(self) -> Tensors:
        """See `JaxSide.interventions`."""
        with torch.no_grad():
            _, cache = self.model.run_with_cache(self._tokens[:, :-1])
        return {name: self._edited(name) for name in cache}

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
