"""An attribute's docstring is a sentence, whatever colon is in it; napoleon alone would read a type before the colon."""

from __future__ import annotations

from sphinx.application import Sphinx

BEFORE_NAPOLEON = 400
EMPTY_COMMENT = ["..", ""]


def lead_in(
    app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]
) -> None:
    """Give the docstring a first line without a colon, and without a trace on the page."""
    if lines and what in ("attribute", "data", "property"):
        lines[:0] = EMPTY_COMMENT


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", lead_in, priority=BEFORE_NAPOLEON)
    return {"parallel_read_safe": True}
