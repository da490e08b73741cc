"""Raw measurements, as results.json holds them; tables and pictures are derived from them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.interleaving import Timing
from revinc import UserError
from revinc.atomic_files import write_text
from revinc.json_records import read_record

FORMAT_VERSION = 1
FILE = "results.json"


@dataclass(frozen=True)
class Entry:
    """The measurements of a contender.

    Attributes:
        key: unique among contenders.
        name: its name in ``--only``.
        title: its name in tables.
        framework: "torch" or "jax".
        width: models side by side.
        missing: why it could not run; then the rest is empty.
        device: the device that it ran on, in words.
        steps: of each timed run, of every model.
        seconds: of each timed run, in the order of the rounds.
        first_result: seconds from process start to the first losses, by "cold" and "warm".
        done_once: seconds by which the first call took longer than the second, likewise.
        host_bytes: peak memory of the process.
        device_bytes: peak memory of its accelerator.
        bound_used: largest error of its first losses, as a share of the bound; at most 1.
    """

    key: str
    name: str
    title: str
    framework: str
    width: int
    missing: str = ""
    device: str = ""
    steps: int = 0
    seconds: list[float] = field(default_factory=list)
    first_result: dict[str, float] = field(default_factory=dict)
    done_once: dict[str, float] = field(default_factory=dict)
    host_bytes: int = 0
    device_bytes: int | None = None
    bound_used: float = 0.0

    @property
    def timing(self) -> Timing:
        """Seconds per step of one model."""
        per = self.steps * self.width
        return Timing(self.title, tuple(seconds / per for seconds in self.seconds))


@dataclass(frozen=True)
class Point:
    """The measurements at one value of a swept size: an entry per contender."""

    value: int
    entries: list[Entry]


@dataclass(frozen=True)
class Results:
    """All measurements of one command.

    Attributes:
        command: the command that wrote them.
        machine: the description of the machine.
        settings: numbers of rounds and the like.
        entries: the contenders.
        sweeps: points by the size that was varied.
        whole_runs: seconds from process start to weights on disk, by title.
        starts: seconds from process start to events, by title; `start.REFERENCE` first.
        calls: seconds of a call outside ``jit``, by title and framework.
        config: the flags of the training config; empty for the tutorial's.
    """

    command: str
    machine: dict[str, str]
    settings: dict[str, float]
    entries: list[Entry] = field(default_factory=list)
    sweeps: dict[str, list[Point]] = field(default_factory=dict)
    whole_runs: dict[str, list[float]] = field(default_factory=dict)
    starts: dict[str, list[float]] = field(default_factory=dict)
    calls: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    config: str = ""

    def save(self, folder: Path) -> None:
        """Write `FILE`, whole or not at all."""
        content = {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        text = json.dumps(content, indent=1) + "\n"
        write_text(folder / FILE, text)

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Read what `save` wrote.

        Raises:
            UserError: if there are no results, or they are damaged or of another format.
        """
        path = folder / FILE
        if not path.exists():
            raise UserError(f"{path} does not exist; measure first")
        content = read_record(path, "benchmark")
        if content.pop("format_version") != FORMAT_VERSION:
            raise UserError(f"{path} is of another format; measure again")
        try:
            content["entries"] = [Entry(**entry) for entry in content["entries"]]
            content["sweeps"] = {
                axis: [Point(p["value"], [Entry(**e) for e in p["entries"]]) for p in points]
                for axis, points in content["sweeps"].items()
            }
            return cls(**content)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error!r}); measure again") from error
