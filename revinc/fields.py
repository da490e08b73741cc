"""Fields of dataclasses: their help, which the command line shows, and whether a dict has just them."""

from __future__ import annotations

import dataclasses
from typing import Any

from revinc.errors import UserError, near_names

DERIVED: Any = None
"""The default of a field that, left out, takes the value that TransformerLens would derive."""


def described(default: Any = dataclasses.MISSING, *, help: str) -> Any:
    """A dataclass field with its default, if it has one, and its help."""
    return dataclasses.field(default=default, metadata={"help": help})


def checked_fields(cls: type, fields: dict[str, Any]) -> dict[str, Any]:
    """`fields`, once it is sure that the dataclass `cls` knows each and misses none.

    Raises:
        UserError: naming the unknown or the missing fields.
    """
    known = {field.name: field for field in dataclasses.fields(cls)}
    for name in fields:
        if name not in known:
            raise UserError(f"{cls.__name__} has no field {name!r}{near_names(name, known)}")
    missing = [
        name
        for name, field in known.items()
        if field.default is dataclasses.MISSING and name not in fields
    ]
    if missing:
        raise UserError(f"{cls.__name__} needs {', '.join(missing)}")
    return fields
