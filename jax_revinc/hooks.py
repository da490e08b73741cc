"""Taps: how activations are seen and edited without any module holding state.

A tap is a pure function ``(name, activation) -> activation`` threaded through every ``__call__``.
The identity costs nothing; caching and interventions are taps, so they work under jit, vmap and grad.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from revinc.errors import UserError, near_names

Tap = Callable[[str, Array], Array]
NamesFilter = str | Sequence[str] | Callable[[str], bool] | None


def identity(name: str, activation: Array) -> Array:
    """The tap that only looks away."""
    return activation


def scoped(tap: Tap, prefix: str) -> Tap:
    """The tap as a submodule sees it: it says ``hook_q``, the tap hears ``prefix.hook_q``."""
    return lambda name, activation: tap(f"{prefix}.{name}", activation)


@cache
def tapped_if(is_tapped: bool, name: str) -> Callable[[Tap, Array], Array]:
    """What lets the tap see an activation called `name`, or passes it by."""
    return (lambda tap, x: tap(name, x)) if is_tapped else (lambda tap, x: x)


@dataclass(frozen=True)
class HookPoint:
    """What a hook function is told about where it is."""

    name: str

    def layer(self) -> int:
        """The block's index.

        Raises:
            UserError: at a hook outside the blocks.
        """
        parts = self.name.split(".")
        if parts[0] != "blocks":
            raise UserError(f"hook {self.name} belongs to no layer")
        return int(parts[1])


class HookFunction(Protocol):
    """``fn(activation, hook)``: returns the new activation, or None to leave it.

    As in TransformerLens, `hook` is passed by keyword, so the parameter must have that name.
    """

    def __call__(self, activation: Array, /, *, hook: HookPoint) -> Array | None: ...


FwdHooks = Iterable[tuple[NamesFilter, HookFunction]]


def select_names(names_filter: NamesFilter, known: Sequence[str]) -> list[str]:
    """The known hook names that a filter picks: a name, several names, a predicate, or None for all.

    Raises:
        UserError: for an unknown name, or a predicate that picks none.
    """
    if names_filter is None:
        return list(known)
    if callable(names_filter):
        picked = [name for name in known if names_filter(name)]
        if not picked:
            raise UserError(f"the filter picks none of the {len(known)} hook names")
        return picked
    names = [names_filter] if isinstance(names_filter, str) else names_filter
    if not isinstance(names, list | tuple | set) or not all(isinstance(n, str) for n in names):
        raise UserError(f"name hooks by a string, strings, or a predicate, not {names_filter!r}")
    for name in names:
        if name not in known:
            full = get_act_name(name)  # shorthands such as "pattern0" are for caches only
            hint = f"; did you mean {full}?" if full in known else near_names(name, known)
            raise UserError(f"there is no hook {name!r}{hint}")
    return list(names)


def editing(fwd_hooks: FwdHooks, known: Sequence[str]) -> Tap:
    """A tap that applies hook functions in the order given, several to a name if need be.

    Raises:
        UserError: for an unknown name, or (when the model runs) a hook that changes a shape.
    """
    functions: dict[str, list[HookFunction]] = {}
    for pair in fwd_hooks:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and callable(pair[1])):
            raise UserError(f"fwd_hooks must be (name, function) pairs in a list, not {pair!r}")
        names_filter, function = pair
        for name in select_names(names_filter, known):
            functions.setdefault(name, []).append(function)

    def tap(name: str, activation: Array) -> Array:
        for function in functions.get(name, ()):
            edited = function(activation, hook=HookPoint(name))
            if edited is None:
                continue
            edited = jnp.asarray(edited, activation.dtype)
            if edited.shape != activation.shape:
                raise UserError(
                    f"the hook on {name} returned shape {list(edited.shape)} "
                    f"instead of {list(activation.shape)}"
                )
            activation = edited
        return activation

    return tap


def recording(inner: Tap, names: Iterable[str], record: dict[str, Array]) -> Tap:
    """A tap that notes in `record` what `inner` made of the activations called `names`."""
    wanted = set(names)

    def tap(name: str, activation: Array) -> Array:
        activation = inner(name, activation)
        if name in wanted:
            record[name] = activation
        return activation

    return tap


ATTN_NAMES = ("q", "k", "v", "z", "rot_q", "rot_k", "result", "pattern", "attn_scores")
MLP_NAMES = ("pre", "post", "mid", "pre_linear")
NORM_NAMES = ("scale", "normalized")
NAME_ALIASES = {
    "attn": "pattern",
    "attn_logits": "attn_scores",
    "query": "q",
    "key": "k",
    "value": "v",
    "mlp_pre": "pre",
    "mlp_mid": "mid",
    "mlp_post": "post",
}
LAYER_TYPE_ALIASES = {
    "a": "attn",
    "attention": "attn",
    "m": "mlp",
    "b": "",
    "block": "",
    "blocks": "",
}


def get_act_name(name: str, layer: int | str | None = None, layer_type: str | None = None) -> str:
    """The full hook name of a shorthand, as `transformer_lens.utils.get_act_name`.

    ``("pattern", 0)`` is ``blocks.0.attn.hook_pattern``; ``"k6"`` is ``("k", 6)``; ``"scale4ln1"`` is
    ``("scale", 4, "ln1")``; ``"scale"`` alone is the final layer norm's. Full names stay.
    """
    is_full = "." in name or name.startswith("hook_")
    if is_full and layer is None and layer_type is None:
        return name
    if match := re.match(r"([a-z]+)(\d+)([a-z]?.*)", name):
        name, layer, layer_type = match.groups()
    name = NAME_ALIASES.get(name, name)
    if name in ATTN_NAMES:
        part = "attn"
    elif name in MLP_NAMES:
        part = "mlp"
    elif name in NORM_NAMES and layer is None:
        return f"ln_final.hook_{name}"
    else:
        part = LAYER_TYPE_ALIASES.get(layer_type or "", layer_type or "")
    parts = ["" if layer is None else f"blocks.{layer}", part, f"hook_{name}"]
    return ".".join(filter(None, parts))


@jax.tree_util.register_pytree_with_keys_class
class ActivationCache(Mapping[Any, Array]):
    """Activations by hook name, in execution order. A pytree: jit and vmap may return it.

    Indexed by full name or by TransformerLens' shorthand: ``cache["pattern", 0]``,
    ``cache["resid_post", -1]``, ``cache["normalized", 1, "ln2"]``.
    """

    def __init__(self, cache_dict: dict[str, Array], n_layers: int) -> None:
        self.cache_dict = cache_dict
        self.n_layers = n_layers

    def __getitem__(self, key: str | tuple[Any, ...]) -> Array:
        name, *rest = (key,) if isinstance(key, str) else key
        if rest and isinstance(rest[0], int | np.integer) and rest[0] < 0:
            rest[0] += self.n_layers
        full = get_act_name(name, *rest)
        if full not in self.cache_dict:
            raise KeyError(f"{full} is not in the cache{near_names(full, self.cache_dict)}")
        return self.cache_dict[full]

    def __iter__(self) -> Iterator[str]:
        return iter(self.cache_dict)

    def __len__(self) -> int:
        return len(self.cache_dict)

    def __repr__(self) -> str:
        return f"ActivationCache with keys {list(self.cache_dict)}"

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        children = [(jax.tree_util.DictKey(name), value) for name, value in self.cache_dict.items()]
        return children, (tuple(self.cache_dict), self.n_layers)

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Iterable[Array]) -> ActivationCache:
        names, n_layers = aux
        return cls(dict(zip(names, children, strict=True)), n_layers)
