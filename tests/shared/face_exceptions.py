"""Lines of code that do not give the same on both sides, or do not run inside `jax.jit`.

``face_exceptions.txt`` and ``face_not_jitted.txt`` list them, a paragraph for each reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from face_sides import CONFIGS, Raised, difference

FOLDER = Path(__file__).parent
KINDS = ("raises", "differs", "refused")


@dataclass(frozen=True)
class Reason:
    """Why a line differs.

    Attributes:
        kind: which side is odd, and how; one of `KINDS`.
        why: the reason.
    """

    kind: str
    why: str


def paragraphs(name: str) -> Iterator[tuple[str, list[str]]]:
    """The heads and lines of the paragraphs of a file, but for the first."""
    for paragraph in (FOLDER / name).read_text().split("\n\n")[1:]:
        head, *lines = paragraph.strip().splitlines()
        assert head.startswith("# "), head
        yield head.removeprefix("# "), lines


@cache
def not_jitted() -> set[str]:
    """The lines that do not run inside `jax.jit`."""
    return {line for _, lines in paragraphs("face_not_jitted.txt") for line in lines}


@cache
def exceptions() -> dict[tuple[str, str], Reason]:
    """The exceptions, by config name and line."""
    found = {}
    for head, lines in paragraphs("face_exceptions.txt"):
        kind, configs, why = (part.strip() for part in head.split("|"))
        assert kind in KINDS, head
        names = list(CONFIGS) if configs == "all" else configs.split("; ")
        assert set(names) <= CONFIGS.keys(), head
        found |= {(name, line): Reason(kind, why) for name in names for line in lines}
    return found


def complaint(ours, theirs, reason: Reason | None) -> str | None:
    """What is wrong about the two values of a line, in words; None if they are as they should be."""
    how = difference(ours, theirs)
    if reason is None:
        return how
    raised = isinstance(ours, Raised), isinstance(theirs, Raised)
    if how is None:
        return "is listed as an exception, but is the same"
    expected = {"raises": (False, True), "differs": (False, False), "refused": (True, False)}
    if raised != expected[reason.kind]:
        return f"is listed as {reason.kind!r}, but: {how}"
    if reason.kind == "refused" and not ours.error.startswith("UserError"):
        return how
    return None
