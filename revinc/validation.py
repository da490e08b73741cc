"""Checks shared by the configs. Each raises a `UserError` that names the field and the value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from revinc.errors import UserError, near_names


def require_int(field: str, value: Any, at_least: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{field} must be an integer, not {value!r}")
    if at_least is not None and value < at_least:
        raise UserError(f"{field} must be at least {at_least}, not {value}")


def require_number(
    field: str, value: Any, at_least: float = 0.0, below: float = math.inf, above: bool = False
) -> None:
    """A finite number with ``at_least <= value < below``, or ``at_least < value`` if `above`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{field} must be a number, not {value!r}")
    too_low = value <= at_least if above else value < at_least
    if not math.isfinite(value) or too_low or value >= below:
        bound = f"above {at_least:g}" if above else f"at least {at_least:g}"
        ceiling = "" if below == math.inf else f" and below {below:g}"
        raise UserError(f"{field} must be a finite number {bound}{ceiling}, not {value}")


def require_bool(field: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise UserError(f"{field} must be True or False, not {value!r}")


def require_choice(field: str, value: Any, choices: Sequence[str | None]) -> None:
    if value not in choices:
        names = [choice for choice in choices if isinstance(choice, str)]
        hint = near_names(value, names) if isinstance(value, str) else ""
        known = ", ".join(map(str, choices))
        raise UserError(f"{field}={value!r} is not implemented{hint} (implemented: {known})")


def require_index(what: str, index: int, n: int) -> None:
    if not 0 <= index < n:
        raise UserError(f"{what} {index} does not exist; choose one of 0..{n - 1}")
