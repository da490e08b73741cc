"""How activations are read and edited: taps, and the hooks that become taps.

A tap is a pure function ``(name, activation) -> activation`` that every ``__call__`` passes on, so
no module holds state. The identity tap costs nothing. Caching and interventions are taps, so they
work under jit, vmap and grad.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array

from jax_revinc.hook_names import NamesFilter, select_names
from revinc.errors import UserError

Tap = Callable[[str, Array], Array]


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


@dataclass(frozen=True)
class HookPoint:
    """A point of the model where an activation can be hooked: its name and its layer."""

    name: str

    def layer(self) -> int:
        """The index of the transformer block that the hook belongs to.

        Raises:
            UserError: for a hook outside the blocks.
        """
        parts = self.name.split(".")
        if parts[0] != "blocks":
            raise UserError(
                f"the hook {self.name} belongs to no layer: only hooks whose names start with "
                "'blocks.' do"
            )
        return int(parts[1])


class HookFunction(Protocol):
    """A hook: ``fn(activation, hook)`` returns the new activation, or None to keep the old one.

    As in TransformerLens, `hook` is passed by keyword, so the parameter must have that name.
    """

    def __call__(self, activation: Array, /, *, hook: HookPoint) -> Array | None: ...


FwdHooks = Iterable[tuple[NamesFilter, HookFunction]]


def editing(fwd_hooks: FwdHooks, known: Sequence[str]) -> Tap:
    """A tap (function on activations) that applies each hook function at its hook names, in order.

    Args:
        fwd_hooks: pairs of a names filter and a hook function.
        known: the model's hook names.

    Raises:
        UserError: for an unknown name, or (when the model runs) a hook that changes a shape.
    """
    functions: dict[str, list[HookFunction]] = {}
    if not isinstance(fwd_hooks, Iterable):
        raise UserError(f"fwd_hooks must be (name, function) pairs in a list, not {fwd_hooks!r}")
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
            edited = as_activation(name, edited, activation.dtype)
            if edited.shape != activation.shape:
                raise UserError(
                    f"the hook function on {name} returned an array of shape {list(edited.shape)} "
                    f"instead of {list(activation.shape)}"
                )
            activation = edited
        return activation

    return tap


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
