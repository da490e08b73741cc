"""The report of a parity check: the results of all parity levels, as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from parity.levels import Level
from revinc.atomic_files import write_text
from revinc.terminal import PlainConsole, styled

FORMAT_VERSION = 1

WIDE = 100
"""The width in characters from which a terminal shows all columns of a table, as the page does."""

FOR_WIDE = ("would be seen", "fails")
"""The columns that only a wide terminal shows, and the page."""


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
        console.print(row_table(level, shown, console.width))
    for remark in level.remarks:
        console.print(remark, soft_wrap=True)
    verdict = styled("PASS", "bold green") if level.passed else styled("FAIL", "bold red")
    counted = f"{len(level.rows)} compared, {len(level.failures)} failed"
    console.print(verdict, f" {level.title}, {level.dtype}: {counted}", soft_wrap=True, end="\n\n")


def row_table(level: Level, rows: Any, width: int) -> Table:
    """A table of a parity level's rows for a terminal of a width in characters.

    No number is broken over lines: only the names, in the first column, are.
    """
    first, *others = rows[0].cells()
    shown = [name for name in others if width >= WIDE or name not in FOR_WIDE]
    title = f"{level.title}, {level.dtype}"
    table = Table(box=None, padding=(0, 1, 0, 0), title=title, title_justify="left")
    table.add_column(first, overflow="fold")
    for heading in shown:
        lines = Text(heading.replace(", ", ",\n"))
        table.add_column(lines, justify="right", no_wrap=True)
    for row in rows:
        cells = row.cells()
        style = None if row.passed else "bold red"
        table.add_row(cells[first], *(cells[name] for name in shown), style=style)
    return table
