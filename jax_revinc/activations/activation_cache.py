"""The activation cache: a run's activations by hook name, with TransformerLens' methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jax_revinc.activations.residual_stream.decomposition import Decomposition
from jax_revinc.activations.residual_stream.layers import fed_layer
from jax_revinc.compilation.devices import find_device
from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.slices import Slice, SliceInput
from revinc import UserError


@jax.tree_util.register_pytree_with_keys_class
class ActivationCache(Decomposition):
    """Activations by hook name, in execution order, with the methods of TransformerLens 3.9's.

    Indexed by full name or by TransformerLens' shorthand: ``cache["pattern", 0]``,
    ``cache["resid_post", -1]``, ``cache["normalized", 1, "ln2"]``.

    It is a pytree whose leaves are the activations alone, so
    ``jax.tree.map(lambda x: x[3], cache)`` is the cache of input 3, and jit and vmap may return it.
    The model belongs to the structure of the tree if its weights are concrete: a jitted function
    that is given a cache is compiled for these weights, and again for others. Set ``cache.model =
    None`` if it shall not be. Traced weights can't leave jit, or vmap over models, so a cache that
    does has no model; to get one, ``ActivationCache(cache.cache_dict, model)``. The same holds for
    a cache that passes through ``jax.tree.map`` where weights are traced.

    Args:
        cache_dict: the activations by full name.
        model: the `HookedTransformer` that they are from.
        has_batch_dim: whether their first axis is the batch.

    Attributes:
        has_embed: whether the cache was made with the token embedding.
        has_pos_embed: whether the cache was made with the positional embedding.
    """

    @with_numerics
    def remove_batch_dim(self) -> ActivationCache:
        """Drop the batch axis of a batch of one, in this cache, and return it.

        Raises:
            UserError: if the batch is larger.
        """
        if self.has_batch_dim:
            size = batch_size(self.cache_dict)
            if size != 1:
                raise UserError(
                    f"remove_batch_dim needs a batch of one sequence, not of {size}; choose one by "
                    "apply_slice_to_batch_dim"
                )
            self.cache_dict = of_inputs(self.cache_dict, Slice(0))
            self.has_batch_dim = False
        return self

    @with_numerics
    def apply_slice_to_batch_dim(self, batch_slice: SliceInput) -> ActivationCache:
        """A cache of some inputs of the batch.

        Args:
            batch_slice: the inputs to keep; an int drops the axis.

        Raises:
            UserError: if an input does not exist, or there is no batch axis.
        """
        inputs = Slice(batch_slice)
        if not self.has_batch_dim and inputs.mode != "identity":
            raise UserError("this cache has no batch axis to slice")
        kept = of_inputs(self.cache_dict, inputs)
        return ActivationCache(kept, self.model, self.has_batch_dim and not inputs.drops_axis)

    @with_numerics
    def stack_activation(
        self, activation_name: str, layer: int | None = -1, sublayer_type: str | None = None
    ) -> Array:
        """The activations of one name in all layers before `layer`, [layer, ...].

        Args:
            activation_name: the short name, such as "pattern".
            layer: 1..n_layers; n_layers, -1 and None mean all layers.
            sublayer_type: "attn", "mlp", "ln1" or "ln2", if the name is not of one alone.

        Raises:
            UserError: for a layer that does not exist, or 0, before which there is none.
            KeyError: if an activation is missing.
        """
        n_layers = fed_layer(self.cfg, layer)
        if not n_layers:
            raise UserError("there is no layer before layer 0, so there is nothing to stack")
        return jnp.stack([self[activation_name, index, sublayer_type] for index in range(n_layers)])

    @with_numerics
    def to(self, device: Any) -> ActivationCache:
        """Move the activations to a device, in this cache, and return it. The model stays.

        Args:
            device: a device of JAX's, or torch's name of one, such as "cpu" or "cuda:1".

        Raises:
            UserError: if this machine has no such device.
        """
        self.cache_dict = jax.device_put(self.cache_dict, find_device(device))
        return self

    def toggle_autodiff(self, mode: bool = False) -> None:
        """Do nothing if `mode` is False: JAX records no gradients unless ``jax.grad`` asks for them.

        Raises:
            UserError: if `mode` is True.
        """
        if mode:
            raise UserError(
                "JAX has no switch for gradients that could be turned on; differentiate a function "
                "of what you are interested in by jax.grad"
            )

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        children = [(jax.tree_util.DictKey(name), value) for name, value in self.cache_dict.items()]
        facts = (self.has_batch_dim, self.has_embed, self.has_pos_embed)
        return children, (tuple(self.cache_dict), facts, self._cfg, pinned(self.model))

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Iterable[Array]) -> ActivationCache:
        names, facts, cfg, model = aux
        cache = cls(dict(zip(names, children, strict=True)), model and model.model)
        cache.has_batch_dim, cache.has_embed, cache.has_pos_embed = facts
        cache._cfg = cfg
        return cache


class PinnedModel:
    """A model with its present arrays: equal only to a model of the same structure and arrays.

    So it may stand in the structure of a tree by which JAX keeps compiled programs, though a model
    can be given other weights.
    """

    def __init__(self, model: Any, arrays: list[Any], structure: Any) -> None:
        self.model = model
        self.arrays = arrays
        self.structure = structure

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PinnedModel)
            and len(self.arrays) == len(other.arrays)
            and all(mine is theirs for mine, theirs in zip(self.arrays, other.arrays, strict=True))
            and self.structure == other.structure
        )

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.arrays)))


def pinned(model: Any) -> PinnedModel | None:
    """A model as a part of a tree's structure; None if there is none, or its weights are traced."""
    arrays, structure = jax.tree.flatten(model)
    if model is None or any(isinstance(array, jax.core.Tracer) for array in arrays):
        return None
    return PinnedModel(model, arrays, structure)


def batch_size(cache_dict: dict[str, Array]) -> int:
    """The size of the batch: the size of most activations' first axis."""
    sizes = Counter(activation.shape[0] for activation in cache_dict.values() if activation.ndim)
    return sizes.most_common(1)[0][0] if sizes else 1


def of_inputs(cache_dict: dict[str, Array], inputs: Slice) -> dict[str, Array]:
    """The activations of some inputs; those whose first axis is not the batch stay as they are."""
    size = batch_size(cache_dict)
    return {
        name: inputs.apply(activation, 0, "input")
        if activation.ndim and activation.shape[0] == size
        else activation
        for name, activation in cache_dict.items()
    }
