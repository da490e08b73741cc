"""Two things that autoapi's directives and napoleon make of docstrings otherwise."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

BEFORE_NAPOLEON = 400
EMPTY_COMMENT = ["..", ""]


def lead_in(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """An attribute's docstring is a sentence, where napoleon reads a type before its first colon.

    So it gets a first line without a colon, which leaves no trace on the page.
    """
    if any(lines) and what in ("attribute", "data", "property"):
        lines[:0] = EMPTY_COMMENT


def is_undocumented(
    app: Sphinx, what: str, name: str, found: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what has no docstring, where autoapi's directives take their own classes' for it."""
    return None if found.docstring else True


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", lead_in, priority=BEFORE_NAPOLEON)
    app.connect("autodoc-skip-member", is_undocumented)
    return {"parallel_read_safe": True}
