"""Fair timing on a noisy machine: contenders take turns, and ratios are taken within a round."""

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

    @property
    def range(self) -> tuple[float, float]:
        """The least and the most."""
        return min(self.seconds), max(self.seconds)

    def ratios_to(self, other: Timing) -> Timing:
        """This contender's time over the other's in the same round, a number per round."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return Timing(f"{self.name} / {other.name}", tuple(mine / theirs for mine, theirs in pairs))

    def ratio_to(self, other: Timing) -> float:
        """The median of `ratios_to`."""
        return self.ratios_to(other).median


def interleave(
    contenders: Mapping[str, Callable[[], float]],
    rounds: int,
    follow: Callable[[str], None] | None = None,
) -> dict[str, Timing]:
    """Ask every contender for its seconds once per round: A B A B ...

    Args:
        contenders: by name.
        rounds: how often each is asked.
        follow: called with the name of each turn; by default a bar shows the rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    numbers = range(rounds)
    for _ in numbers if follow else track(numbers, description="benchmarking", transient=True):
        for name, contender in contenders.items():
            if follow:
                follow(name)
            seconds[name].append(contender())
    return {name: Timing(name, tuple(times)) for name, times in seconds.items()}
