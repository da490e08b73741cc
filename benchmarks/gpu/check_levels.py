"""A parity check in a process of its own, for the stage of parity."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from jax_revinc.compilation.compilation_cache import enable_compilation_cache
from jax_revinc.engines.device import in_words
from parity.check import check
from parity.levels import Level
from parity.report import print_level
from revinc import TrainConfig
from revinc.terminal import PlainConsole


def check_levels(cfg: dict[str, Any], levels: list[str]) -> dict[str, Any]:
    """Check levels of parity on a fresh model, and print the tables of those that fail.

    Args:
        cfg: a training config, as `TrainConfig.to_dict` returns it.
        levels: the names of the levels.

    Returns:
        JAX's device in words, a sentence on each level that passed, and one on each that failed.
    """
    enable_compilation_cache()
    found = partial(print_if_failed, PlainConsole())
    report = check(TrainConfig.from_dict(cfg), levels, found=found)
    return {
        "device": in_words(jax.devices()[0]),
        "passed": [in_a_sentence(level) for level in report.levels if level.passed],
        "failed": [in_a_sentence(level) for level in report.levels if not level.passed],
    }


def print_if_failed(console: PlainConsole, level: Level) -> None:
    """Print the table of a level that failed."""
    if not level.passed:
        print_level(console, level)


def in_a_sentence(level: Level) -> str:
    """A level's result: how many things were compared, and which differs or how close they are."""
    called, n_rows = f"{level.title}, {level.dtype}", len(level.rows)
    if not level.rows:
        return f"{called}: nothing could be compared"
    if level.failures:
        first = level.failures[0].name
        return f"{called}: {len(level.failures)} of {n_rows} differ, the first is {first}"
    used = max(row.used for row in level.rows)
    return f"{called}: {n_rows} agree, with at most {used:.2g} of their bound"
