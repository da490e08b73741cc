"""Parameters by name, as modules are given them."""

from __future__ import annotations

from collections.abc import Mapping

from jax import Array

Params = Mapping[str, Array]


def within(params: Params, prefix: str) -> dict[str, Array]:
    """The parameters below `prefix`, by their names there."""
    start = f"{prefix}."
    return {name.removeprefix(start): p for name, p in params.items() if name.startswith(start)}
