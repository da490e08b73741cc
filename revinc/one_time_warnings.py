"""Logging of warnings that a user should see only once."""

from __future__ import annotations

import functools
import logging

logger = logging.getLogger(__name__)


@functools.cache
def notice(sentence: str) -> None:
    """Log a warning, unless this process has logged the same one before."""
    logger.warning("%s", sentence)
