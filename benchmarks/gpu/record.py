"""What the command found, as gpu.json holds it; the page is derived from it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu.stages import Outcome
from benchmarks.results import Entry
from revinc import UserError
from revinc.atomic_files import write_text
from revinc.json_records import read_record

FORMAT_VERSION = 1
FILE = "gpu.json"


@dataclass(frozen=True)
class Record:
    """The outcomes so far, and what they depend on.

    Attributes:
        command: the command that wrote it.
        dry_run: whether no GPU was used.
        machine: the description of machine, card, driver and versions.
        stages: what each stage does, by its name, in their order.
        outcomes: of the stages that have ended.
    """

    command: str
    dry_run: bool
    machine: dict[str, str]
    stages: dict[str, str]
    outcomes: list[Outcome] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write `FILE`, whole or not at all."""
        content = {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        write_text(folder / FILE, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Record:
        """Read what `save` wrote.

        Raises:
            UserError: if there is no record, or it is damaged or of another format.
        """
        content = read_record(folder / FILE, "GPU report's")
        if content.pop("format_version") != FORMAT_VERSION:
            raise UserError(f"{folder / FILE} is of another format; run make gpu again")
        try:
            outcomes = [
                Outcome(**(told | {"entries": [Entry(**entry) for entry in told["entries"]]}))
                for told in content.pop("outcomes")
            ]
            return cls(**content, outcomes=outcomes)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{folder / FILE} is damaged ({error!r}); run make gpu again"
            ) from error
