"""Seconds: of a call, of a call on some of torch's threads, and of an engine's steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from revinc.engine import Engine, PopulationEngine


def seconds(function: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def with_threads(threads: int, run: Callable[[], float]) -> Callable[[], float]:
    """`run` on that many torch threads: on arrays this small more are not always better."""

    def run_with_threads() -> float:
        torch.set_num_threads(threads)
        return run()

    return run_with_threads


class Stepper:
    """Trains on the same rows again and again; each call gives the seconds per model-step.

    Args:
        engine: an engine of one run, or of a population.
        state: the engine's state before the first step.
        rows: of every step, [step, batch] or [model, step, batch].
        n_steps: steps in `rows`.
        width: models that the engine trains side by side.
    """

    def __init__(
        self,
        engine: Engine | PopulationEngine,
        state: Any,
        rows: np.ndarray,
        n_steps: int,
        width: int = 1,
    ) -> None:
        self._advance, self._rows = engine.advance, rows
        self._model_steps = n_steps * width
        self._state, self.first_losses = self._advance(state, rows)

    def __call__(self) -> float:
        begin = time.perf_counter()
        self._state, _ = self._advance(self._state, self._rows)
        return (time.perf_counter() - begin) / self._model_steps
