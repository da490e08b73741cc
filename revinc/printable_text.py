"""Text that is safe to print: control characters, which a terminal obeys, are escaped."""

from __future__ import annotations

import re

UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters: escapes, line feeds, tabs
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of writing
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\udfff]"  # halves of characters: in a path, a byte that is not UTF-8
)
"""The characters that a terminal obeys instead of showing, or that can't be encoded."""

UNDECODED = range(0xDC80, 0xDD00)
"""The characters by which Python represents bytes of a path that are not UTF-8 (PEP 383)."""


def printable(text: object) -> str:
    r"""Text on one line, with unprintable characters as escapes: ``\x1b``, ``\n``, ``\u202e``.

    Args:
        text: any object, by its ``str``. Letters of all scripts stay as they are.
    """
    return UNPRINTABLE.sub(_escape, str(text))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code in UNDECODED:
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape").decode()
