"""What the parts of a model have in common: each knows its place in the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flax import nnx

from jax_revinc.hooks.hook_points import HookPoint


class Component(nnx.Module):
    """A part of a model, such as ``model.blocks[0].attn``.

    Its hook points are attributes: ``model.blocks[0].attn.hook_z``. Called alone, it applies no
    hooks.
    """

    _place: Place | None = None

    def __getattr__(self, name: str) -> HookPoint:
        if self._place is None:
            raise missing(self, name)
        return hook_attribute(self, name, self._place.model, self._place.path)


class Place:
    """Where a component stands in a model. All places are equal: no compiled program depends on them.

    Args:
        model: the model.
        path: the component's name in it, such as ``blocks.0.attn``.
    """

    def __init__(self, model: Any, path: str) -> None:
        self.model = model
        self.path = path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"Place({self.path})"


def components(module: nnx.Module, path: str = "") -> Iterator[tuple[str, nnx.Module]]:
    """The components of a module, and theirs, each with its dotted name."""
    for name, value in vars(module).items():
        if isinstance(value, Component | nnx.List):
            inner = f"{path}.{name}" if path else name
            yield inner, value
            yield from components(value, inner)


def place_components(model: nnx.Module) -> None:
    """Tell every component of a model where it stands."""
    for path, component in components(model):
        object.__setattr__(component, "_place", Place(model, path))


def hook_attribute(owner: object, name: str, model: Any, path: str = "") -> HookPoint:
    """The hook point that is called `name` in a component.

    Args:
        owner: the component, or the model itself.
        name: the attribute that was asked for.
        model: the model.
        path: the component's name in the model.

    Raises:
        AttributeError: if the component has no such hook point.
    """
    full = f"{path}.{name}" if path else name
    if name.startswith("hook_") and full in model.hook_names:
        return model.hook_point(full)  # type: ignore[no-any-return]
    raise missing(owner, name)


def missing(owner: object, name: str) -> AttributeError:
    """The error for an attribute that an object lacks."""
    return AttributeError(f"{type(owner).__name__!r} object has no attribute {name!r}")
