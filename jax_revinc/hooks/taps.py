"""How activations are read and edited: taps, and the hooks that become taps.

A tap is a pure function ``(name, activation) -> activation`` that every ``__call__`` passes on, so
no module holds state. The identity tap costs nothing. Caching and interventions are taps, so they
work under jit, vmap and grad.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jax_revinc.hooks.hook_names import NamesFilter, select_names
from jax_revinc.hooks.hook_points import (
    Direction,
    HookPoint,
    LensHandle,
    apply_hooks,
    checked_edit,
)
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


class HookFunction(Protocol):
    """A hook: ``fn(activation, hook)`` returns the new activation, or None to keep the old one.

    As in TransformerLens, `hook` is passed by keyword, so the parameter must have that name.
    """

    def __call__(self, activation: Array, /, *, hook: HookPoint) -> Array | None: ...


FwdHooks = Iterable[tuple[NamesFilter, HookFunction]]


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


def recording(inner: Tap, names: Iterable[str], record: dict[str, Array]) -> Tap:
    """A tap (function on activations) that calls the tap `inner` and stores activations by name."""
    wanted = set(names)

    def tap(name: str, activation: Array) -> Array:
        activation = inner(name, activation)
        if name in wanted:
            record[name] = activation
        return activation

    return tap
