"""Dataclass fields that carry the sentence which the command line's ``--help`` shows."""

from __future__ import annotations

import dataclasses
from typing import Any

DERIVED: Any = None
"""The default of a field that, left out, takes the value that TransformerLens would derive."""


def described(default: Any = dataclasses.MISSING, *, help: str) -> Any:
    """A dataclass field with its default, if it has one, and its help."""
    return dataclasses.field(default=default, metadata={"help": help})
