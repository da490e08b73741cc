"""Hooks that outlive a call: the part of a model that adds, lists and removes them.

They are static data of the model. A jitted function that is given the model sees them, and is compiled
again when they change.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from jax import Array

from jax_revinc.hooks.hook_names import NamesFilter, select_names
from jax_revinc.hooks.hook_points import (
    BOTH,
    Contexts,
    Direction,
    HookPoint,
    LensHandle,
    set_handles,
)
from jax_revinc.hooks.taps import FwdHooks, one_call_handles
from jax_revinc.slices import Slice, SliceInput
from revinc.validation import require_choice


class LastingHooks:
    """The hooks of a model, as ``HookedRootModule`` of TransformerLens 3.9 has them."""

    _handles: tuple[LensHandle, ...]
    _contexts: Contexts
    _level: int

    @property
    def hook_names(self) -> tuple[str, ...]:
        """The names of all hook points, in execution order."""
        raise NotImplementedError

    @property
    def context_level(self) -> int:
        """How many `hooks` contexts are open."""
        return self._level

    @property
    def hook_dict(self) -> dict[str, HookPoint]:
        """Every hook point by name, in execution order."""
        return {name: self.hook_point(name) for name in self.hook_names}

    def hook_point(self, name: str) -> HookPoint:
        """The hook point of a name, which is not checked."""
        return HookPoint(name, self)

    def hook_points(self) -> list[HookPoint]:
        """Every hook point, in execution order."""
        return list(self.hook_dict.values())

    def add_hook(
        self,
        name: NamesFilter,
        hook: Callable[..., Any],
        dir: Direction = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """Add a hook function, which stays until it is removed.

        Args:
            name: a name, several names, or a predicate on names.
            hook, dir, is_permanent, level, prepend: as for `HookPoint.add_hook`.

        Raises:
            UserError: for an unknown name or `dir`.
        """
        for each in select_names(name, self.hook_names):
            self.hook_point(each).add_hook(hook, dir, is_permanent, level, prepend)

    def add_perma_hook(
        self, name: NamesFilter, hook: Callable[..., Any], dir: Direction = "fwd"
    ) -> None:
        """Add a hook function that `reset_hooks` keeps; see `add_hook`."""
        self.add_hook(name, hook, dir, is_permanent=True)

    @contextmanager
    def hooks(
        self,
        fwd_hooks: FwdHooks = (),
        bwd_hooks: FwdHooks = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[Self]:
        """A context in which the model has more hooks.

        Args:
            fwd_hooks, bwd_hooks: pairs of a names filter and a function, for activations and for
                gradients; see `add_hook`.
            reset_hooks_end: remove these hooks at the end, even after an exception.
            clear_contexts: empty every ``hook.ctx`` then, too.

        Raises:
            UserError: for an unknown name. No hook is added then.
        """
        level = self._level + 1
        handles = self.with_handles(fwd_hooks, bwd_hooks)
        self._set_level(level)
        try:
            set_handles(self, handles)
            yield self
        finally:
            if reset_hooks_end:
                self.reset_hooks(clear_contexts, including_permanent=False, level=level)
            self._set_level(level - 1)

    def with_handles(self, fwd_hooks: FwdHooks, bwd_hooks: FwdHooks = ()) -> tuple[LensHandle, ...]:
        """The model's hooks, and behind them those of one context or call.

        Raises:
            UserError: for an unknown name, or pairs of something else.
        """
        level = self._level + 1
        return (
            *self._handles,
            *one_call_handles(fwd_hooks, self.hook_names, "fwd", level),
            *one_call_handles(bwd_hooks, self.hook_names, "bwd", level),
        )

    def _set_level(self, level: int) -> None:
        object.__setattr__(self, "_level", level)

    def reset_hooks(
        self,
        clear_contexts: bool = True,
        direction: str = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Remove hooks; permanent ones only if `including_permanent`.

        Args:
            clear_contexts: empty every ``hook.ctx``.
            direction: "fwd", "bwd" or "both".
            including_permanent: remove every hook of the direction.
            level: remove only the hooks of the ``hooks`` context of this depth.

        Raises:
            UserError: for an unknown direction.
        """
        if clear_contexts:
            self.clear_contexts()
        self.remove_all_hook_fns(direction, including_permanent, level)

    def remove_all_hook_fns(
        self,
        direction: str = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Remove hooks, and keep every ``hook.ctx``; see `reset_hooks`."""
        require_choice("direction", direction, BOTH)
        level = None if including_permanent else level
        set_handles(
            self,
            [h for h in self._handles if not h.is_selected(direction, including_permanent, level)],
        )

    def clear_contexts(self) -> None:
        """Empty the ``hook.ctx`` of every hook point."""
        self._contexts.clear()

    def list_hooks(
        self,
        name_filter: NamesFilter = None,
        dir: str = "both",
        including_permanent: bool = True,
    ) -> dict[str, list[LensHandle]]:
        """The hooks that are there, by the names of the hook points that have any.

        Args:
            name_filter: a name, several names, a predicate on names, or None for all.
            dir: "fwd", "bwd" or "both".
            including_permanent: list the permanent ones, too.

        Raises:
            UserError: for an unknown name or `dir`.
        """
        require_choice("dir", dir, BOTH)
        found: dict[str, list[LensHandle]] = {}
        for name in select_names(name_filter, self.hook_names):
            handles = [h for h in self._handles if h.name == name]
            chosen = [h for h in handles if h.is_selected(dir, including_permanent, None)]
            if chosen:
                found[name] = chosen
        return found

    def get_caching_hooks(
        self,
        names_filter: NamesFilter = None,
        incl_bwd: bool = False,
        device: object = None,  # noqa: ARG002
        remove_batch_dim: bool = False,
        cache: dict[str, Array] | None = None,
        pos_slice: SliceInput = None,
    ) -> tuple[dict[str, Array], list[Any], list[Any]]:
        """Hooks that store activations, for `hooks` or ``run_with_hooks``.

        Args:
            names_filter: which activations: a name, several names, a predicate, or None for all.
            incl_bwd: store gradients, too, by name with ``_grad``.
            device: without effect, as JAX places arrays itself.
            remove_batch_dim: drop the batch axis, of a batch of one.
            cache: the dict to store into; by default a new one.
            pos_slice: the positions to store.

        Returns:
            The dict, the pairs of forward hooks, and those of backward hooks.

        Raises:
            UserError: for an unknown name.
        """
        stored: dict[str, Array] = {} if cache is None else cache

        def store(activation: Array, hook: HookPoint, ending: str = "") -> None:
            kept = activation[0] if remove_batch_dim else activation
            stored[hook.name + ending] = at_positions(hook.name, kept, pos_slice)

        names = select_names(names_filter, self.hook_names)
        fwd_hooks = [(name, store) for name in names]
        backward = functools.partial(store, ending="_grad")
        return stored, fwd_hooks, [(name, backward) for name in names if incl_bwd]

    def add_caching_hooks(
        self,
        names_filter: NamesFilter = None,
        incl_bwd: bool = False,
        device: object = None,
        remove_batch_dim: bool = False,
        cache: dict[str, Array] | None = None,
    ) -> dict[str, Array]:
        """Add hooks that store activations, and return the dict that they store into.

        Args:
            names_filter, incl_bwd, device, remove_batch_dim, cache: as for `get_caching_hooks`.
        """
        stored, fwd_hooks, bwd_hooks = self.get_caching_hooks(
            names_filter, incl_bwd, device, remove_batch_dim, cache
        )
        for dir, pairs in (("fwd", fwd_hooks), ("bwd", bwd_hooks)):
            for name, store in pairs:
                self.add_hook(name, store, dir)  # type: ignore[arg-type]
        return stored

    def cache_all(
        self,
        cache: dict[str, Array] | None,
        incl_bwd: bool = False,
        device: object = None,
        remove_batch_dim: bool = False,
    ) -> None:
        """Add hooks that store all activations into a dict; see `add_caching_hooks`."""
        self.add_caching_hooks(None, incl_bwd, device, remove_batch_dim, cache)

    def cache_some(
        self,
        cache: dict[str, Array] | None,
        names: NamesFilter,
        incl_bwd: bool = False,
        device: object = None,
        remove_batch_dim: bool = False,
    ) -> None:
        """Add hooks that store some activations into a dict; see `add_caching_hooks`."""
        self.add_caching_hooks(names, incl_bwd, device, remove_batch_dim, cache)


PER_HEAD = ("hook_q", "hook_k", "hook_v", "hook_z", "hook_result")
"""The ends of the names of activations with an axis of heads after that of positions."""


def at_positions(name: str, activation: Array, pos_slice: SliceInput) -> Array:
    """An activation at some positions; of scores and patterns these are the queries.

    Args:
        name: its hook's name.
        activation: with or without a batch axis.
        pos_slice: the positions to keep.
    """
    axis = -3 if name.endswith(PER_HEAD) else -2
    has_positions = activation.ndim >= -axis
    return Slice.unwrap(pos_slice).apply(activation, axis) if has_positions else activation
