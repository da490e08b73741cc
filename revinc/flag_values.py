"""Parsers of command-line values, whose errors argparse prints after the flag's name."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any

from revinc.errors import shown

LONGEST_PATH = 4096
"""The largest number of characters in a path; Linux has this limit in bytes."""


def integer(text: str) -> int:
    """Parse the text of a flag as an integer in ASCII digits."""
    return _read(int, text)


def number(text: str) -> float:
    """Parse the text of a flag as a float in ASCII digits."""
    return _read(float, text)


def count(text: str) -> int:
    """Parse an integer of at least 1."""
    found = integer(text)
    if not 1 <= found < 2**31:
        raise ArgumentTypeError(f"the value must be at least 1 and below 2**31, not {shown(found)}")
    return found


def path(text: str) -> Path:
    """Parse the path of a file or folder."""
    if not text or "\0" in text or len(text) > LONGEST_PATH:
        raise ArgumentTypeError(f"{shown(text)} can't be the path of a file or folder")
    return Path(text)


def folder(text: str) -> Path:
    """Parse the path of a folder, which need not exist yet."""
    found = path(text)
    if found.exists() and not found.is_dir():
        raise ArgumentTypeError(f"{shown(text)} is a file; choose a folder")
    return found


def address(text: str) -> str:
    """Parse a network address such as ``localhost:8476``."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port[:6]) < 2**16:
        raise ArgumentTypeError(
            f"invalid address value: {shown(text)}; write HOST:PORT, with a port below 2**16"
        )
    return text


def _read(kind: Callable[[str], Any], text: str) -> Any:
    try:
        if not text.isascii():
            raise ValueError
        return kind(text)
    except ValueError:
        hint = "; this flag takes one value (those with ,.. in --help take several)"
        message = f"invalid {kind.__name__} value: {shown(text)}{hint if ',' in text else ''}"
        raise ArgumentTypeError(message) from None
