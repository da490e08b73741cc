"""Timing contenders fairly on a noisy machine: in turn, with medians, and ratios pair by pair."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.progress import track


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender, a number per round."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def ratio_to(self, other: Timing) -> float:
        """The median, over rounds, of this contender's time over the other's in the same round."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def interleave(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Timing]:
    """Ask every contender for its seconds once per round: A B A B ..."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in track(range(rounds), description="benchmarking", transient=True):
        for name, contender in contenders.items():
            seconds[name].append(contender())
    return {name: Timing(name, tuple(times)) for name, times in seconds.items()}
