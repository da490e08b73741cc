"""The JAX side of the parity check: activations, gradients and interventions of our model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from jax_revinc import HookedTransformer, numerics
from jax_revinc.compilation.quick_jit import quick_jit
from jax_revinc.model import hook_names
from jax_revinc.objective import token_losses
from parity.inputs import EDITS, UNLIKELY_LOSSES, Inputs, Tensors, direction

Params = dict[str, Array]


class Ids(NamedTuple):
    """The token ids that a program is given: it is compiled for their shapes, not for their values.

    Attributes:
        fed: what the model is fed.
        targets: the tokens to be predicted.
        unlikely: the least likely token at each of their positions.
    """

    fed: Int[Array, "batch pos"]
    targets: Int[Array, "batch n_predicted"]
    unlikely: Int[Array, "batch n_predicted"]


class JaxSide:
    """The JAX model of a parity check, and what it computes on the inputs.

    Args:
        model: the model; its weights are cast to `dtype`.
        inputs: the tokens, and the positions whose loss counts.
        unlikely: at each of these positions the token to take the loss of, from `least_likely`.
        dtype: "float32" or "float64".
    """

    def __init__(
        self,
        model: HookedTransformer,
        inputs: Inputs,
        unlikely: Int[np.ndarray, "batch n_predicted"],
        dtype: str,
    ) -> None:
        self.cfg = model.cfg.replace(dtype=dtype)
        self.params = {name: weight.astype(dtype) for name, weight in model.state_dict().items()}
        self.inputs = inputs
        self.unlikely = unlikely
        self._names = hook_names(self.cfg)
        self._floats = [name for name in self._names if name != "hook_tokens"]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the parameters, and those of the activations on the inputs."""
        activations = {n: a.shape for n, a in self.forward().items() if n in self._names}
        return {name: param.shape for name, param in self.params.items()} | activations

    def forward(self) -> Tensors:
        """Every activation in execution order, then the logits, then the losses.

        The losses are those of the predicted tokens, and those of the least likely ones.
        """

        def forward(params: Params, ids: Ids) -> Params:
            logits, cache = self._model(params).run_with_cache(ids.fed)
            return {
                **cache,
                "logits": logits,
                "losses": self._losses(logits, ids.targets),
                UNLIKELY_LOSSES: self._losses(logits, ids.unlikely),
            }

        return self._run(forward)

    def gradients(self) -> Tensors:
        """Gradients of the mean loss on the least likely tokens, by activation and parameter."""

        def loss(params: Params, shifts: Params, ids: Ids) -> Array:
            def shift(name: str, activation: Array) -> Array:
                has_shift = name in shifts and shifts[name].shape == activation.shape
                return activation + shifts[name] if has_shift else activation

            logits = self._model(params)(ids.fed, tap=shift)
            return self._losses(logits, ids.unlikely).mean()

        def gradients(params: Params, ids: Ids) -> Params:
            _, cache = self._model(params).run_with_cache(ids.fed)
            zeros = {name: jnp.zeros_like(cache[name]) for name in cache if name in self._floats}
            by_parameter, by_activation = jax.grad(loss, argnums=(0, 1))(params, zeros, ids)
            return by_activation | by_parameter

        return self._run(gradients)

    def interventions(self) -> Tensors:
        """The logits after each edit of an activation: [edit, batch, pos, d_vocab_out], by hook."""

        def edited_logits(params: Params, ids: Ids, hook: Array, edit: Array) -> Array:
            keep, other, add = edit

            def tap(name: str, activation: Array) -> Array:
                if name not in self._floats:
                    return activation
                along = jnp.asarray(direction(activation.shape[-1]), activation.dtype)
                edited = keep * activation + other * jnp.roll(activation, -1, 0) + add * along
                touched = (hook == self._floats.index(name)) & jnp.isfinite(activation)
                return jnp.where(touched, edited, activation)

            return self._model(params)(ids.fed, tap=tap)

        def sweep(params: Params, ids: Ids) -> Params:
            edits = jnp.array([(edit.keep, edit.other, edit.add) for edit in EDITS], self.cfg.dtype)
            by_edit = jax.vmap(edited_logits, in_axes=(None, None, None, 0))
            logits = jax.lax.map(
                lambda hook: by_edit(params, ids, hook, edits), jnp.arange(len(self._floats))
            )
            return dict(zip(self._floats, logits, strict=True))

        return self._run(sweep)

    @property
    def _fed(self) -> Int[np.ndarray, "batch pos"]:
        return self.inputs.tokens[:, :-1]

    @property
    def _targets(self) -> Int[np.ndarray, "batch n_predicted"]:
        return self.inputs.tokens[:, list(self.inputs.predicted)]

    def _model(self, params: Params) -> HookedTransformer:
        return HookedTransformer(self.cfg, params=params)

    def _losses(self, logits: Array, targets: Any) -> Array:
        predicted = np.array(self.inputs.predicted)
        return token_losses(logits[:, predicted - 1], jnp.asarray(targets))

    def _run(self, function: Callable[[Params, Ids], Params]) -> Tensors:
        with numerics(self.cfg):
            ids = Ids(*map(jnp.asarray, (self._fed, self._targets, self.unlikely)))
            outputs = quick_jit(function)(self.params, ids)
        in_order = sorted(outputs, key=self._order)
        return {name: np.asarray(outputs[name]) for name in in_order}

    def _order(self, name: str) -> int:
        """The sort key of a tensor's name: activations in execution order, then the rest.

        It is needed because jit returns dicts sorted by key.
        """
        return self._names.index(name) if name in self._names else len(self._names)
