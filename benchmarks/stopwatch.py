"""Seconds that a call takes, on so many of torch's threads."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def with_threads(threads: int, run: Callable[[], float]) -> Callable[[], float]:
    """`run` on that many torch threads: on arrays this small more are not always better."""

    def run_with_threads() -> float:
        torch.set_num_threads(threads)
        return run()

    return run_with_threads


def seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin
