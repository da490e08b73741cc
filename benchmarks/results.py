"""What was measured, raw, as JSON holds it: everything else is derived from it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.interleaving import Timing
from revinc import UserError
from revinc.atomic import write_atomically

FORMAT_VERSION = 1
FILE = "results.json"


@dataclass(frozen=True)
class Entry:
    """What was measured of a contender.

    Attributes:
        key: unique among contenders.
        name: what ``--only`` calls it.
        title: what tables call it.
        framework: "torch" or "jax".
        width: models side by side.
        missing: why it could not run; the rest is empty then.
        device: what it ran on.
        steps: of each timed run, of every model.
        seconds: of each timed run, in the order of the rounds.
        first_result: seconds from process start to the first losses, by "cold" and "warm".
        done_once: seconds that the first call took longer than the second, likewise.
        host_bytes: peak memory of the process.
        device_bytes: peak memory of its accelerator.
        bound_used: how much of what rounding explains its first losses needed, at most 1.
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
    """What was measured at one value of a swept size: an entry per contender, interleaved with all points."""

    value: int
    entries: list[Entry]


@dataclass(frozen=True)
class Results:
    """All that a run of the benchmarks measured.

    Attributes:
        command: that wrote them.
        machine: what the numbers depend on.
        settings: numbers of rounds and the like.
        entries: of the tutorial's model, interleaved.
        sweeps: by the size that was varied.
        whole_runs: seconds from process start to weights on disk, by title.
    """

    command: str
    machine: dict[str, str]
    settings: dict[str, float]
    entries: list[Entry] = field(default_factory=list)
    sweeps: dict[str, list[Point]] = field(default_factory=dict)
    whole_runs: dict[str, list[float]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write `FILE`, whole or not at all."""
        content = {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        text = json.dumps(content, indent=1) + "\n"
        write_atomically(folder / FILE, lambda temporary: temporary.write_text(text))

    @classmethod
    def load(cls, folder: Path) -> Results:
        """The inverse of `save`.

        Raises:
            UserError: if there are none, or of another format.
        """
        path = folder / FILE
        if not path.exists():
            raise UserError(f"{path} does not exist; measure first")
        content: dict[str, Any] = json.loads(path.read_text())
        if content.pop("format_version") != FORMAT_VERSION:
            raise UserError(f"{path} is of another format; measure again")
        content["entries"] = [Entry(**entry) for entry in content["entries"]]
        content["sweeps"] = {
            axis: [Point(p["value"], [Entry(**entry) for entry in p["entries"]]) for p in points]
            for axis, points in content["sweeps"].items()
        }
        return cls(**content)
