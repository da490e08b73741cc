"""Conversions of values from NumPy, JAX, torch or users to checked Python values.

Each raises a `UserError` that names the field and shows the value.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from revinc.errors import UserError, shown, unknown_name


def plain(value: Any) -> Any:
    """Convert a scalar of numpy, JAX or torch to a Python value, or a dtype to its name.

    Anything else is returned unchanged.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, type):
        is_dtype = isinstance(getattr(value, "dtype", None), np.dtype)  # such as jnp.float32
        return value.__name__ if is_dtype or issubclass(value, np.generic) else value
    if type(value).__module__ == "torch" and type(value).__name__ == "dtype":
        return str(value).removeprefix("torch.")
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        try:
            return value.item()
        except (TypeError, ValueError, RuntimeError):  # it has no value: it is traced or deleted
            return value
    return value


def require_int(
    field: str,
    value: Any,
    at_least: int | None = None,
    at_most: int | None = None,
    below: int | None = None,
) -> int:
    """`value` as a Python int; a bool is refused."""
    number = plain(value)
    try:
        if isinstance(number, bool):
            raise TypeError
        if getattr(number, "ndim", 0):  # torch takes [3] for an integer
            raise TypeError
        number = operator.index(number)
    except TypeError:
        raise UserError(f"{field} must be an integer, not {shown(value)}") from None
    if at_least is not None and number < at_least:
        raise UserError(f"{field} must be at least {in_powers(at_least)}, not {shown(number)}")
    if at_most is not None and number > at_most:
        raise UserError(f"{field} must be at most {in_powers(at_most)}, not {shown(number)}")
    if below is not None and number >= below:
        raise UserError(f"{field} must be below {in_powers(below)}, not {shown(number)}")
    return number


def require_number(
    field: str,
    value: Any,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """`value` as a finite Python float; a bool is refused."""
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, int | float | np.floating):
        raise UserError(f"{field} must be a number, not {shown(value)}")
    try:
        number = float(number)
    except OverflowError:
        number = math.inf
    too_low = (at_least is not None and number < at_least) or (
        above is not None and number <= above
    )
    if not math.isfinite(number) or too_low or (below is not None and number >= below):
        bounds = {"at least": at_least, "above": above, "below": below}
        range_ = " and ".join(f"{word} {b:g}" for word, b in bounds.items() if b is not None)
        raise UserError(
            f"{field} must be a finite number {range_}".rstrip() + f", not {shown(value)}"
        )
    return number


def require_bool(field: str, value: Any) -> bool:
    """`value` as a Python bool."""
    truth = plain(value)
    if not isinstance(truth, bool):
        raise UserError(f"{field} must be True or False, not {shown(value)}")
    return truth


def require_choice(field: str, value: Any, choices: Sequence[str | None]) -> Any:
    """`value` as one of `choices`, which are names or None."""
    name = plain(value)
    if not (name is None or isinstance(name, str)) or name not in choices:
        raise unknown_name(field, value, map(str, choices))
    return name


def require_ints(
    field: str, value: Any, at_least: int | None = None, below: int | None = None
) -> tuple[int, ...]:
    """`value`, a tuple, list, range or array with one axis, as a tuple of Python ints."""
    return tuple(
        require_int(field, each, at_least=at_least, below=below)
        for each in require_several(field, value)
    )


def require_choices(field: str, value: Any, choices: Sequence[str]) -> tuple[str, ...]:
    """`value`, a tuple, list or array, as a tuple of names that are each one of `choices`."""
    return tuple(require_choice(field, each, choices) for each in require_several(field, value))


def require_several(field: str, value: Any) -> Sequence[Any]:
    """`value`, a tuple, list, range or array with one axis, as a sequence."""
    if getattr(value, "ndim", None) == 1 and hasattr(value, "tolist"):
        return list(value.tolist())
    if not isinstance(value, tuple | list | range):
        raise UserError(f"{field} must be a tuple of values, not {shown(value)}")
    return value


def require_instance(field: str, value: Any, kind: type) -> Any:
    """`value`, checked to be an instance of the class `kind`."""
    if not isinstance(value, kind):
        raise UserError(f"{field} must be a {kind.__name__}, not {shown(value)}")
    return value


def require_path(field: str, value: Any) -> Path:
    """`value`, a string or path-like object, as a path."""
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or "\0" in path:
        raise UserError(f"{field} must be a path, not {shown(value)}")
    return Path(path)


def require_index(what: str, index: Any, n: int) -> int:
    """`index` as a Python int, checked to lie in 0..n - 1."""
    number = require_int(what, index)
    if not 0 <= number < n:
        raise UserError(
            f"{what} {shown(number)} does not exist; choose one of 0..{n - 1}"
            if n
            else f"{what} {shown(number)} does not exist: there are none"
        )
    return number


def in_powers(bound: int) -> str:
    """An integer as text; large powers of 2 or 10 are written as powers: ``2**32``, ``-10**30``."""
    sign, size = "-" if bound < 0 else "", abs(bound)
    for base in (2, 10):
        exponent = round(math.log(size, base)) if size > 2**16 else 0
        if exponent and base**exponent == size:
            return f"{sign}{base}**{exponent}"
    return str(bound)
