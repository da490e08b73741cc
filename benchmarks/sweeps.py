"""Cost against size: the tutorial's model with one size changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.contender import Contender
from benchmarks.entrants import Effort, Entrant, Follow, Race, enter, time_in_turn
from benchmarks.results import Entry, Point
from revinc import PRESETS, TrainConfig
from revinc.tasks import ReverseIncrement

BASE = PRESETS["tutorial"]

JUDGED = 2
"""Models whose losses are compared at each point."""


def with_d_model(size: int) -> TrainConfig:
    """All widths in the model's proportions: d_head half as wide, the MLP as wide."""
    model = BASE.model.replace(d_model=size, d_head=size // 2, d_mlp=size, n_heads=1)
    return dataclasses.replace(BASE, model=model)


def with_layers(number: int) -> TrainConfig:
    return dataclasses.replace(BASE, model=BASE.model.replace(n_layers=number))


def with_context(length: int) -> TrainConfig:
    """Longer sequences of the same task, of two symbols so that all can be listed."""
    longer = ReverseIncrement(length=(length - 1) // 2, n_symbols=2)
    task = BASE.task if length == BASE.model.n_ctx else longer
    return dataclasses.replace(BASE, task=task, model=BASE.model.replace(n_ctx=length))


def with_batch(size: int) -> TrainConfig:
    return dataclasses.replace(BASE, batch_size=size)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A size, its values, and the training config at each value."""

    title: str
    values: tuple[int, ...]
    config_at: Callable[[int], TrainConfig]


SWEEPS: Mapping[str, Sweep] = {
    "d_model": Sweep("d_model (d_head and d_mlp in proportion)", (4, 8, 16, 32, 64), with_d_model),
    "n_layers": Sweep("layers", (1, 2, 4, 8), with_layers),
    "n_ctx": Sweep("context, tokens", (9, 17, 25, 33), with_context),
    "batch_size": Sweep("batch, sequences", (4, 16, 64, 128), with_batch),
}


def measure_sweep(
    sweep: Sweep, contenders: Sequence[Contender], effort: Effort, folder: Path, follow: Follow
) -> list[Point]:
    """Every contender at every value, all of them interleaved.

    Raises:
        AnotherTraining: if the losses of one are not those of the training.
        WorkerFailed: if one fails that should not.
    """
    begun: list[tuple[int, Entrant | Entry]] = []
    with ExitStack() as stack:
        for value in sweep.values:
            home = folder / str(value)
            home.mkdir(parents=True)
            widest = max(contender.width for contender in contenders)
            race = Race(sweep.config_at(value), widest, home, JUDGED)
            begun += [
                (value, enter(stack, contender, race, effort, home / contender.key, follow))
                for contender in contenders
            ]
        entrants = [one for _, one in begun if isinstance(one, Entrant)]
        timed = iter(time_in_turn(entrants, effort.rounds, follow))
        done = [(value, next(timed) if isinstance(one, Entrant) else one) for value, one in begun]
    return [Point(value, [entry for at, entry in done if at == value]) for value in sweep.values]
