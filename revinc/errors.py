"""The one kind of error that is the user's to mend: a sentence that says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. Command lines print its message alone and exit with status 2."""


def near_names(name: str, known: Iterable[str]) -> str:
    """``"; did you mean a or b?"`` for the known names closest to `name`, or ``""`` if none is close."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""
