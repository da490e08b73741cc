"""Activations of one run by hook name, and the model that they are from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jax import Array

from jax_revinc.hooks.hook_names import get_act_name
from revinc import HookedTransformerConfig, UserError
from revinc.errors import near_names

GIVE_A_MODEL = "give it one: ActivationCache(cache.cache_dict, model)"


class CachedActivations(Mapping[Any, Array]):
    """Activations by full hook name or by TransformerLens' shorthand, in execution order.

    Args:
        cache_dict: the activations by full name.
        model: the model that they are from, or None.
        has_batch_dim: whether their first axis is the batch.

    Attributes:
        has_embed: whether the token embedding is among them.
        has_pos_embed: whether the positional embedding is among them.
    """

    def __init__(
        self, cache_dict: dict[str, Array], model: Any, has_batch_dim: bool = True
    ) -> None:
        self.cache_dict = cache_dict
        self.model = model
        self.has_batch_dim = has_batch_dim
        self.has_embed = "hook_embed" in cache_dict
        self.has_pos_embed = "hook_pos_embed" in cache_dict
        self._cfg: HookedTransformerConfig | None = getattr(model, "cfg", None)

    @property
    def cfg(self) -> HookedTransformerConfig:
        """The config of the model, which a cache knows even if it holds no weights.

        Raises:
            UserError: if the cache was made without a model.
        """
        if self._cfg is None:
            raise UserError(f"this cache knows no model; {GIVE_A_MODEL}")
        return self._cfg

    def known_model(self) -> Any:
        """The model.

        Raises:
            UserError: if the cache holds none.
        """
        if self.model is None:
            raise UserError(
                "this needs the model's weights, and a cache that was made of traced weights, or "
                f"without a model, holds none; {GIVE_A_MODEL}"
            )
        return self.model

    def __getitem__(self, key: str | tuple[Any, ...]) -> Array:
        name, *rest = (key if isinstance(key, tuple) else (key,)) or ("",)
        if not isinstance(name, str):
            raise KeyError(f"{key!r} is not in the cache: hook names are strings")
        if rest and isinstance(rest[0], int | np.integer) and rest[0] < 0:
            rest[0] += self.cfg.n_layers
        full = get_act_name(name, *rest)
        if full not in self.cache_dict:
            raise KeyError(f"{full} is not in the cache{near_names(full, self.cache_dict)}")
        return self.cache_dict[full]

    def __iter__(self) -> Iterator[str]:
        return iter(self.cache_dict)

    def __len__(self) -> int:
        return len(self.cache_dict)

    def __repr__(self) -> str:
        lines = [f"  {name} {list(np.shape(value))}" for name, value in self.cache_dict.items()]
        return "\n".join([f"{type(self).__name__}, by hook name and shape:", *lines])
