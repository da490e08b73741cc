"""How activations are read and edited: hook names, the activation cache, and taps.

A tap is a pure function ``(name, activation) -> activation`` that every ``__call__`` passes on, so
no module holds state. The identity tap costs nothing. Caching and interventions are taps, so they
work under jit, vmap and grad.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jax_revinc.hook_points import Direction, HookPoint, LensHandle
from revinc.errors import UserError, near_names, shown

Tap = Callable[[str, Array], Array]
NamesFilter = str | Sequence[str] | Callable[[str], bool] | None


def identity(name: str, activation: Array) -> Array:
    """The identity tap: a function that every activation passes through, and that changes none."""
    return activation


def scoped(tap: Tap, prefix: str) -> Tap:
    """A tap (function on activations) for a submodule: it puts `prefix.` before hook names."""
    return lambda name, activation: tap(f"{prefix}.{name}", activation)


@cache
def optional_tap(enabled: bool, name: str) -> Callable[[Tap, Array], Array]:
    """Make a function ``(tap, x)`` that returns ``tap(name, x)`` if `enabled`, and else `x`."""
    return (lambda tap, x: tap(name, x)) if enabled else (lambda tap, x: x)


class HookFunction(Protocol):
    """A hook: ``fn(activation, hook)`` returns the new activation, or None to keep the old one.

    As in TransformerLens, `hook` is passed by keyword, so the parameter must have that name.
    """

    def __call__(self, activation: Array, /, *, hook: HookPoint) -> Array | None: ...


FwdHooks = Iterable[tuple[NamesFilter, HookFunction]]


def select_names(names_filter: NamesFilter, known: Sequence[str]) -> list[str]:
    """The names among `known`, the model's hook names, that `names_filter` picks.

    Args:
        names_filter: a name, several names, a predicate on names, or None for all.
        known: the model's hook names.

    Raises:
        UserError: for an unknown name, or a predicate that picks no name.
    """
    if names_filter is None:
        return list(known)
    if callable(names_filter):
        picked = [name for name in known if names_filter(name)]
        if not picked:
            raise UserError(f"names_filter picks none of the model's {len(known)} hook names")
        return picked
    names = [names_filter] if isinstance(names_filter, str) else names_filter
    if not isinstance(names, list | tuple | set) or not all(isinstance(n, str) for n in names):
        raise UserError(
            "names_filter must be a hook name, a list of names or a function of a name, "
            f"not {names_filter!r}"
        )
    for name in names:
        if name not in known:
            full = get_act_name(name)  # shorthands such as "pattern0" are for caches only
            hint = f"; did you mean {full}?" if full in known else near_names(name, known)
            raise UserError(f"the model has no hook {shown(name)}{hint}")
    return list(names)


def one_call_handles(
    pairs: FwdHooks, known: Sequence[str], dir: Direction = "fwd", level: int | None = None
) -> list[LensHandle]:
    """The hooks of pairs of a names filter and a hook function, in order.

    Args:
        pairs: pairs of a names filter and a hook function.
        known: the model's hook names.
        dir: "fwd" for hooks of activations, "bwd" for hooks of their gradients.
        level: the depth of the ``hooks`` context that they belong to.

    Raises:
        UserError: for an unknown name, or pairs of something else.
    """
    argument = f"{dir}_hooks"
    if not isinstance(pairs, Iterable):
        raise UserError(f"{argument} must be (name, function) pairs in a list, not {pairs!r}")
    handles = []
    for pair in pairs:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and callable(pair[1])):
            raise UserError(f"{argument} must be (name, function) pairs in a list, not {pair!r}")
        names_filter, function = pair
        names = select_names(names_filter, known)
        handles += [LensHandle(name, function, dir, context_level=level) for name in names]
    return handles


def applying(handles: Iterable[LensHandle], point: Callable[[str], HookPoint]) -> Tap:
    """A tap (function on activations) that applies hooks, in order.

    Args:
        handles: hooks of activations and of gradients.
        point: makes the hook point that a hook function is given, from its name.

    Raises:
        UserError: (when the model runs) for a hook that returns no array, or another shape.
    """
    forward: dict[str, list[LensHandle]] = {}
    backward: dict[str, list[LensHandle]] = {}
    for handle in handles:
        (forward if handle.dir == "fwd" else backward).setdefault(handle.name, []).append(handle)

    def tap(name: str, activation: Array) -> Array:
        edited = apply_hooks(forward.get(name, ()), activation, point)
        if name in backward and jnp.issubdtype(activation.dtype, jnp.floating):
            return with_gradient_hooks(backward[name], activation, edited, point)
        return edited

    return tap


def apply_hooks(
    handles: Iterable[LensHandle], activation: Array, point: Callable[[str], HookPoint]
) -> Array:
    """What hooks of one name make of an activation, or of a gradient, each in its turn."""
    for handle in handles:
        edited = handle.user_hook(activation, hook=point(handle.name))
        if edited is not None:
            activation = checked_edit(handle.name, edited, activation)
    return activation


def with_gradient_hooks(
    handles: Sequence[LensHandle],
    before: Array,
    after: Array,
    point: Callable[[str], HookPoint],
) -> Array:
    """An activation whose gradient is shown to hooks of one name, when it is computed.

    As in PyTorch's ``register_full_backward_hook``, each hook gets the gradient with respect to the
    activation `after` the forward hooks. What one returns, the last one wins, becomes the gradient
    with respect to the activation `before` them, and forward hooks are not differentiated then.
    """

    @jax.custom_vjp
    def passed(before: Array, after: Array) -> Array:
        return after

    def forward(before: Array, after: Array) -> tuple[Array, None]:
        return after, None

    def backward(_: None, gradient: Array) -> tuple[Array, Array]:
        edited = None
        for handle in handles:
            result = handle.user_hook(gradient, hook=point(handle.name))
            if isinstance(result, tuple) and len(result) == 1:
                result = result[0]
            if result is not None:
                edited = checked_edit(handle.name, result, gradient)
        nothing = jnp.zeros_like(gradient)
        return (nothing, gradient) if edited is None else (edited, nothing)

    passed.defvjp(forward, backward)
    return passed(before, after)


def checked_edit(name: str, edited: Any, activation: Array) -> Array:
    """What a hook function returned instead of an activation.

    Raises:
        UserError: if it is no array of the activation's shape.
    """
    edited = as_activation(name, edited, activation.dtype)
    if edited.shape != activation.shape:
        raise UserError(
            f"the hook function on {name} returned an array of shape {list(edited.shape)} "
            f"instead of {list(activation.shape)}"
        )
    return edited


def as_activation(name: str, edited: Any, dtype: Any) -> Array:
    """The result of a hook function as an array of `dtype`: hooks never change the precision."""
    try:
        if jnp.iscomplexobj(edited):
            raise TypeError
        return jnp.asarray(edited, dtype)
    except (TypeError, ValueError):
        kind = type(edited).__name__
        raise UserError(
            f"the hook function on {name} returned a value of type {kind}, not an array of real "
            "numbers or None"
        ) from None


def recording(inner: Tap, names: Iterable[str], record: dict[str, Array]) -> Tap:
    """A tap (function on activations) that calls the tap `inner` and stores activations by name."""
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
    """The full name of a hook from its short name, as `transformer_lens.utils.get_act_name`.

    ``("pattern", 0)`` is ``blocks.0.attn.hook_pattern``; ``"k6"`` is ``("k", 6)``; ``"scale4ln1"``
    is ``("scale", 4, "ln1")``; ``"scale"`` alone is the final layer norm's. Full names are returned
    unchanged.

    Args:
        name: the activation's short name, or its full name.
        layer: the block's index.
        layer_type: "attn", "mlp", "ln1", "ln2", or one of `LAYER_TYPE_ALIASES`.
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
    """Activations by hook name, in execution order. It is a pytree, so jit and vmap may return it.

    Indexed by full name or by TransformerLens' shorthand: ``cache["pattern", 0]``,
    ``cache["resid_post", -1]``, ``cache["normalized", 1, "ln2"]``.
    """

    def __init__(self, cache_dict: dict[str, Array], n_layers: int) -> None:
        self.cache_dict = cache_dict
        self.n_layers = n_layers

    def __getitem__(self, key: str | tuple[Any, ...]) -> Array:
        name, *rest = (key if isinstance(key, tuple) else (key,)) or ("",)
        if not isinstance(name, str):
            raise KeyError(f"{key!r} is not in the cache: hook names are strings")
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
        lines = [f"  {name} {list(np.shape(value))}" for name, value in self.cache_dict.items()]
        return "\n".join(["ActivationCache, by hook name and shape:", *lines])

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        children = [(jax.tree_util.DictKey(name), value) for name, value in self.cache_dict.items()]
        return children, (tuple(self.cache_dict), self.n_layers)

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Iterable[Array]) -> ActivationCache:
        names, n_layers = aux
        return cls(dict(zip(names, children, strict=True)), n_layers)
