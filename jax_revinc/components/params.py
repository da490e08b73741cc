"""The parameters from which modules are built, as dicts by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from jax import Array

Params = Mapping[str, Array]
T = TypeVar("T")


def within(params: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The parameters whose names start with `prefix` and a dot, by name without that prefix."""
    start = f"{prefix}."
    return {name.removeprefix(start): p for name, p in params.items() if name.startswith(start)}
