"""The exception for errors that the user can fix, and functions that word messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

LONGEST_SHOWN = 80
"""Characters of a value in a message."""


class UserError(ValueError):
    """An error that the user can fix. Commands print its message alone and exit with status 2."""


def near_names(name: Any, known: Iterable[str]) -> str:
    """The hint ``"; did you mean a or b?"`` with the known names closest to `name`, or ``""``."""
    folded = {each.casefold(): each for each in known}
    wanted = str(name)[:LONGEST_SHOWN].casefold()
    close = [wanted] if wanted in folded else difflib.get_close_matches(wanted, folded, cutoff=0.5)
    return f"; did you mean {' or '.join(folded[each] for each in close)}?" if close else ""


def unknown_name(what: str, name: Any, known: Iterable[str], others: str = "") -> UserError:
    """A UserError for an unknown name, whose message lists the known names.

    Args:
        what: what is named, such as the field ``split``.
        name: the name that was given.
        known: the names to choose from.
        others: further choices, in words.
    """
    known = list(known)
    choices = ", ".join([*known, others] if others else known)
    return UserError(
        f"unknown {what} {shown(name)}; choose from {choices}{near_names(name, known)}"
    )


def shown(value: Any) -> str:
    """Describe a value in an error message: its shortened `repr`, or an array's type and shape."""
    if hasattr(value, "dtype") and isinstance(getattr(value, "shape", None), tuple) and value.shape:
        return f"an array of {value.dtype} {list(value.shape)}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a foreign __repr__ may raise anything, Python's fails on 5,000 digits
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:50]} ... {text[-20:]}"


def one_line(error: BaseException) -> str:
    """The message of an error, with its lines joined to one."""
    return " ".join(str(error).split())


def several(phrases: Sequence[str], separator: str = ", ", most: int = 10) -> str:
    """Join the first `most` phrases for a sentence, and say how many more there are."""
    more = len(phrases) - most
    return separator.join(phrases[:most]) + (f" and {more} more" if more > 0 else "")


def sentence(error: Exception) -> str:
    """The message of an error, with the path of the file if it has one: "Disk full: runs/a"."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return str(error)
