"""Times contenders: starts each cold and warm, compares its losses, then times all in turn."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contender import Contender, Job
from benchmarks.interleaving import interleave
from benchmarks.results import Entry
from benchmarks.same_training import FIRST_STEPS, JUDGED, Truth, find_truth
from benchmarks.worker import Worker, WorkerFailed
from jax_revinc.training import draw_weights
from revinc import TrainConfig
from revinc.weights import StateDict, save_state_dict

FEWEST_STEPS, MOST_STEPS = 5, 2000
"""Limits of the steps of a timed run."""

Follow = Callable[[str], None]
"""A function that is told the current work."""


@dataclass(frozen=True)
class Effort:
    """Rounds, the approximate seconds of a timed run, and the kinds of start."""

    rounds: int
    seconds: float
    starts: tuple[str, ...] = ("cold", "warm")

    def steps_of(self, contender: Contender) -> int:
        """How often `Follow` is called for it in `measure`."""
        return 0 if contender.missing else len(self.starts) + self.rounds


@dataclass
class Entrant:
    """A contender in its running process, and its results so far."""

    worker: Worker
    entry: Entry

    def run(self) -> float:
        """The seconds of a timed run."""
        return float(self.worker.ask("run", n_steps=self.entry.steps)["seconds"])


class Race:
    """A training config and initial weights, on which contenders are compared.

    Args:
        cfg: the training config; model i has seed i.
        width: the most models side by side.
        folder: for files that the processes share.
        judged: models whose losses are compared.
    """

    def __init__(self, cfg: TrainConfig, width: int, folder: Path, judged: int = JUDGED) -> None:
        self.cfg, self.judged = cfg.with_seed(0), min(judged, width)
        drawn = [draw_weights(cfg.with_seed(seed)) for seed in range(width)]
        self.weights: StateDict = {
            name: np.stack([weights[name] for weights in drawn]) for name in drawn[0]
        }
        self._path = folder / "weights.safetensors"
        save_state_dict(self._path, self.weights)
        self._truths: dict[tuple[str, ...], Truth] = {}

    def job(self, contender: Contender) -> Job:
        """What a process needs to train as `contender` does."""
        return Job(contender, self.cfg, str(self._path))

    def truth(self, frozen: tuple[str, ...]) -> Truth:
        """The true losses, and their bound, of models with these parameters frozen."""
        if frozen not in self._truths:
            self._truths[frozen] = find_truth(self.cfg, self.weights, frozen, self.judged)
        return self._truths[frozen]


def enter(
    stack: ExitStack,
    contender: Contender,
    race: Race,
    effort: Effort,
    caches: Path,
    follow: Follow,
) -> Entrant | Entry:
    """Start a contender, cold and then warm, and keep the last process.

    Returns an entry without times if it can't run here.

    Raises:
        AnotherTraining: if its losses are not those of the training.
        WorkerFailed: if it fails and is not one that may; names it.
    """
    entry = blank(contender)
    if contender.missing:
        return entry
    truth = race.truth(contender.frozen)
    first: dict[str, dict[str, Any]] = {}
    arrived: dict[str, float] = {}
    for start in effort.starts:
        follow(f"{start} start: {contender.title}, {contender.width}")
        process = ExitStack()
        worker = process.enter_context(Worker(race.job(contender), caches))
        stack.push(process)
        try:
            first[start] = ask_first(worker, race.judged)
        except WorkerFailed as error:
            if not contender.may_fail:
                raise WorkerFailed(f"{contender.title}: {error}") from error
            return dataclasses.replace(entry, missing=f"failed here ({error})")
        arrived[start] = time.perf_counter() - worker.started
        share = truth.check(contender.title, np.array(first[start]["losses"]))
        if start != effort.starts[-1]:
            process.close()
    last = first[effort.starts[-1]]
    entry = dataclasses.replace(
        entry,
        device=last["device"],
        steps=steps_for(effort.seconds, last["again"] / FIRST_STEPS),
        first_result=arrived,
        done_once={start: answer["once"] - answer["again"] for start, answer in first.items()},
        bound_used=share,
    )
    return Entrant(worker, entry)


def ask_first(worker: Worker, judged: int) -> dict[str, Any]:
    """The first losses of a process, and their seconds."""
    return worker.ask("first", job=worker.job.to_dict(), n_steps=FIRST_STEPS, n_losses=judged)


def blank(contender: Contender) -> Entry:
    """An entry without results."""
    return Entry(
        contender.key,
        contender.name,
        contender.title,
        contender.framework,
        contender.width,
        contender.missing,
    )


def steps_for(seconds: float, seconds_per_step: float) -> int:
    """The number of steps that take about `seconds`."""
    return int(np.clip(round(seconds / seconds_per_step), FEWEST_STEPS, MOST_STEPS))


def time_in_turn(entrants: Sequence[Entrant], rounds: int, follow: Follow) -> list[Entry]:
    """Time all entrants, interleaved, and complete their entries."""
    for entrant in entrants:
        entrant.run()  # the first run of that length draws its batches
    numbered = {str(i): entrant for i, entrant in enumerate(entrants)}
    timings = interleave(
        {number: entrant.run for number, entrant in numbered.items()},
        rounds,
        lambda number: follow(f"timing: {numbered[number].entry.title}"),
    )
    return [complete(numbered[number], list(t.seconds)) for number, t in timings.items()]


def complete(entrant: Entrant, seconds: list[float]) -> Entry:
    """The entry with its times and the peak memory of its process."""
    peaks = entrant.worker.ask("memory")
    return dataclasses.replace(
        entrant.entry, seconds=seconds, host_bytes=peaks["host"], device_bytes=peaks["device"]
    )


def measure(
    contenders: Sequence[Contender], cfg: TrainConfig, effort: Effort, folder: Path, follow: Follow
) -> list[Entry]:
    """Measure contenders that train `cfg`, each started with its own caches.

    Raises:
        AnotherTraining: if the losses of one are not those of the training.
        WorkerFailed: if one fails that should not.
    """
    follow("drawing weights, finding the truth")
    race = Race(cfg, max((c.width for c in contenders), default=1), folder)
    with ExitStack() as stack:
        start = partial(enter, stack, race=race, effort=effort, follow=follow)
        begun = [start(contender, caches=folder / contender.key) for contender in contenders]
        entrants = [one for one in begun if isinstance(one, Entrant)]
        timed = iter(time_in_turn(entrants, effort.rounds, follow))
        return [next(timed) if isinstance(one, Entrant) else one for one in begun]
