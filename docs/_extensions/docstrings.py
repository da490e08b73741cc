"""Two corrections of how autoapi and napoleon read docstrings."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

BEFORE_NAPOLEON = 400
EMPTY_COMMENT = ["..", ""]


def lead_in(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Keep napoleon from reading a type before the first colon of an attribute's docstring.

    An empty comment goes in front; it leaves no trace on the page.
    """
    if any(lines) and what in ("attribute", "data", "property"):
        lines[:0] = EMPTY_COMMENT


def is_undocumented(
    app: Sphinx, what: str, name: str, found: Any, skip: bool, options: Any
) -> bool | None:
    """Skip members without a docstring: autoapi would show the docstring of its own class."""
    return None if found.docstring else True


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", lead_in, priority=BEFORE_NAPOLEON)
    app.connect("autodoc-skip-member", is_undocumented)
    return {"parallel_read_safe": True}
