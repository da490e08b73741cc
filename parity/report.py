"""The report of a parity check: the results of all parity levels, as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from parity.levels import Level
from revinc.atomic_files import write_text
from revinc.terminal import PlainConsole, styled

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Report:
    """The result of a parity check: its levels' results, what was compared, and the versions.

    Attributes:
        subject: what was compared, in words.
        levels: the result of each level in each precision.
        versions: the versions of the packages that were compared.
        config: the training config, or the model config, that was compared.
    """

    subject: str
    levels: list[Level]
    versions: dict[str, str]
    config: dict[str, Any]

    @property
    def passed(self) -> bool:
        return all(level.passed for level in self.levels)

    def to_dict(self) -> dict[str, Any]:
        """The report without figures, in JSON types; NaN and infinities are strings."""
        return {
            "format_version": FORMAT_VERSION,
            "subject": self.subject,
            "passed": self.passed,
            "versions": self.versions,
            "config": self.config,
            "levels": [
                {
                    "name": level.name,
                    "title": level.title,
                    "dtype": level.dtype,
                    "passed": level.passed,
                    "remarks": level.remarks,
                    "rows": [as_json(row) for row in level.rows],
                }
                for level in self.levels
            ],
        }

    def save_json(self, path: Path) -> None:
        """Write the report as a JSON file, atomically."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        write_text(path, text)

    def __str__(self) -> str:
        console = PlainConsole(width=120, color_system=None)
        with console.capture() as captured:
            for level in self.levels:
                print_level(console, level)
        return captured.get()


def as_json(row: Any) -> dict[str, Any]:
    """The fields of a report's row as JSON types, and whether the row passed."""
    fields = {name: finite_or_text(value) for name, value in dataclasses.asdict(row).items()}
    return fields | {"passed": row.passed}


def finite_or_text(value: Any) -> Any:
    """Return a value as it is, but NaN and infinities, which JSON lacks, as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def print_level(console: PlainConsole, level: Level) -> None:
    """Print a parity level's table (of L0 only failed rows), its remarks and its verdict."""
    shown = level.failures if level.name == "L0" else level.rows
    if shown:
        console.print(row_table(level, shown))
    for remark in level.remarks:
        console.print(remark, soft_wrap=True)
    verdict = styled("PASS", "bold green") if level.passed else styled("FAIL", "bold red")
    counted = f"{len(level.rows)} compared, {len(level.failures)} failed"
    console.print(verdict, f" {level.title}, {level.dtype}: {counted}", soft_wrap=True, end="\n\n")


def row_table(level: Level, rows: Any) -> Table:
    """A table for the terminal, with a parity level's rows."""
    headings = list(rows[0].cells())
    table = Table(box=None, title=f"{level.title}, {level.dtype}", title_justify="left")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        style = None if row.passed else "bold red"
        table.add_row(*row.cells().values(), style=style)
    return table
