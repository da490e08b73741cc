"""Hook points, and the hook functions that stay at them until they are removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import jax.numpy as jnp
from jax import Array

from revinc.errors import UserError
from revinc.validation import require_choice

Direction = Literal["fwd", "bwd"]
BOTH = ("fwd", "bwd", "both")


class LensHandle:
    """A hook function that stays at a hook point. Two are equal if they do the same.

    Args:
        name: the hook point's name.
        user_hook: the function ``fn(activation, hook)``.
        dir: "fwd" for activations, "bwd" for their gradients.
        is_permanent: whether ``reset_hooks`` keeps it.
        context_level: the depth of the ``hooks`` context that removes it, or None.
    """

    def __init__(
        self,
        name: str,
        user_hook: Callable[..., Any],
        dir: Direction = "fwd",
        is_permanent: bool = False,
        context_level: int | None = None,
    ) -> None:
        self.name = name
        self.user_hook = user_hook
        self.dir = dir
        self.is_permanent = is_permanent
        self.context_level = context_level

    def _key(self) -> tuple[object, ...]:
        # The function counts by its identity: two that compare equal may do different things.
        return self.name, id(self.user_hook), self.dir, self.is_permanent, self.context_level

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LensHandle) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"LensHandle({self.name}, {self.user_hook!r}, {self.dir})"

    def is_selected(self, dir: str, including_permanent: bool, level: int | None) -> bool:
        """Whether a removal or a listing of hooks of these properties means this one."""
        return (
            dir in (self.dir, "both")
            and (including_permanent or not self.is_permanent)
            and level in (None, self.context_level)
        )


class Contexts:
    """The ``hook.ctx`` of every hook point. All are equal: no compiled program depends on them."""

    def __init__(self) -> None:
        self._by_name: dict[str, dict[str, Any]] = {}

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self._by_name.setdefault(name, {})

    def clear(self) -> None:
        """Empty all of them."""
        for context in self._by_name.values():
            context.clear()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Contexts)

    def __hash__(self) -> int:
        return 0


class HookPoint:
    """A point of the model where an activation, or its gradient, can be read and edited.

    Args:
        name: its name.
        model: the model that it belongs to, which holds the hooks.
    """

    def __init__(self, name: str, model: Any = None) -> None:
        self.name = name
        self._model = SimpleNamespace(_handles=(), _contexts=Contexts()) if model is None else model

    def __call__(self, activation: Array) -> Array:
        """What the hooks of this point make of an activation."""
        return apply_hooks(self.fwd_hooks, activation, lambda _: self)

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

    @property
    def ctx(self) -> dict[str, Any]:
        """A dict in which hook functions may keep what they like, until `clear_context`."""
        return self._model._contexts[self.name]  # type: ignore[no-any-return]

    def clear_context(self) -> None:
        """Empty `ctx`."""
        self.ctx.clear()

    @property
    def fwd_hooks(self) -> list[LensHandle]:
        """The hooks of the activation, in the order in which they run."""
        return self._chosen("fwd")

    @property
    def bwd_hooks(self) -> list[LensHandle]:
        """The hooks of the activation's gradient, in the order in which they run."""
        return self._chosen("bwd")

    def add_hook(
        self,
        hook: Callable[..., Any],
        dir: Direction = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """Add a hook function, which stays until it is removed.

        Args:
            hook: ``fn(activation, hook)``; it returns the new activation, or None to keep the old
                one. With `dir` "bwd" it gets the gradient, and may return another.
            dir: "fwd" or "bwd".
            is_permanent: whether `remove_hooks` and ``reset_hooks`` keep it.
            level: the depth of the ``hooks`` context that removes it.
            prepend: run it before the hooks that are there.

        Raises:
            UserError: for an unknown `dir`, or a hook that is no function.
        """
        require_choice("dir", dir, BOTH[:2])
        if not callable(hook):
            raise UserError(f"a hook must be a function of an activation, not {hook!r}")
        new = LensHandle(self.name, hook, dir, is_permanent, level)
        old = self._model._handles
        set_handles(self._model, (new, *old) if prepend else (*old, new))

    def add_perma_hook(self, hook: Callable[..., Any], dir: Direction = "fwd") -> None:
        """Add a hook function that ``reset_hooks`` keeps; see `add_hook`."""
        self.add_hook(hook, dir, is_permanent=True)

    def has_hooks(
        self, dir: str = "both", including_permanent: bool = True, level: int | None = None
    ) -> bool:
        """Whether there are hooks of a direction, and of a level if it is not None."""
        require_choice("dir", dir, BOTH)
        return bool(self._chosen(dir, including_permanent, level))

    def remove_hooks(
        self, dir: str = "fwd", including_permanent: bool = False, level: int | None = None
    ) -> None:
        """Remove the hooks of a direction, and of a level if it is not None.

        Raises:
            UserError: for an unknown `dir`.
        """
        require_choice("dir", dir, BOTH)
        removed = self._chosen(dir, including_permanent, None if including_permanent else level)
        set_handles(self._model, [h for h in self._model._handles if h not in removed])

    def _chosen(
        self, dir: str, including_permanent: bool = True, level: int | None = None
    ) -> list[LensHandle]:
        return [
            handle
            for handle in self._model._handles
            if handle.name == self.name and handle.is_selected(dir, including_permanent, level)
        ]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, HookPoint) and self.name == other.name and self._model is other._model
        )

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        counts = {"fwd": len(self.fwd_hooks), "bwd": len(self.bwd_hooks)}
        listed = "".join(f", {n} {dir}" for dir, n in counts.items() if n)
        return f"HookPoint(name={self.name!r}{listed})"


def apply_hooks(
    handles: Iterable[LensHandle], activation: Array, point: Callable[[str], HookPoint]
) -> Array:
    """What hooks of one name make of an activation, or of a gradient, each in its turn."""
    for handle in handles:
        edited = handle.user_hook(activation, hook=point(handle.name))
        if edited is not None:
            activation = checked_edit(handle.name, edited, activation)
    return activation


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
    if isinstance(edited, Array) and edited.dtype == dtype:
        return edited
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


def set_handles(model: Any, handles: Sequence[LensHandle]) -> None:
    """Replace the hooks of a model.

    They are static data of the model, replaced as a whole: a compiled program that was made for
    other hooks is not used again.
    """
    # A model that a traced function captured may be given hooks for the time of its trace.
    object.__setattr__(model, "_handles", tuple(handles))
