"""The error of a stage."""

from __future__ import annotations


class StageFailed(Exception):
    """What was asked does not hold, or could not be asked; the message is a sentence that says so."""
