"""What the judge found at all its levels, as a table, as JSON and as a page."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from parity.levels import Level
from revinc.atomic import write_atomically

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Report:
    """The verdict on one subject.

    Attributes:
        subject: what was compared, in words.
        levels: what each level found, in each precision that it was asked for.
        versions: of the packages that were compared.
        config: of the run, or of the model, that was compared.
    """

    subject: str
    levels: list[Level]
    versions: dict[str, str]
    config: dict[str, Any]

    @property
    def passed(self) -> bool:
        return all(level.passed for level in self.levels)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the figures, in types that JSON can hold; NaN and infinities as strings."""
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
        """Write `to_dict` as a JSON file, atomically."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        write_atomically(path, partial(Path.write_text, data=text))

    def print(self, console: Console) -> None:
        """The tables and the verdicts of all levels."""
        for level in self.levels:
            print_level(console, level)

    def __str__(self) -> str:
        console = Console(width=120, highlight=False, color_system=None)
        with console.capture() as captured:
            self.print(console)
        return captured.get()


def as_json(row: Any) -> dict[str, Any]:
    """A row's fields and its verdict."""
    fields = {name: finite_or_text(value) for name, value in dataclasses.asdict(row).items()}
    return fields | {"passed": row.passed}


def finite_or_text(value: Any) -> Any:
    """The value, or its name where it is a number that JSON lacks."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def print_level(console: Console, level: Level) -> None:
    """A row for each thing looked at (L0: only where it fails), what else there is to say, the verdict."""
    shown = level.failures if level.name == "L0" else level.rows
    if shown:
        console.print(row_table(level, shown))
    for remark in level.remarks:
        console.print(remark, soft_wrap=True, markup=False)
    verdict = "[bold green]PASS[/]" if level.passed else "[bold red]FAIL[/]"
    counted = f"{len(level.rows)} compared, {len(level.failures)} failed"
    console.print(f"{verdict}  {level.title}, {level.dtype}: {counted}\n", soft_wrap=True)


def row_table(level: Level, rows: Any) -> Table:
    """The cells of a level's rows."""
    headings = list(rows[0].cells())
    table = Table(box=None, title=f"{level.title}, {level.dtype}", title_justify="left")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        style = None if row.passed else "bold red"
        table.add_row(*row.cells().values(), style=style)
    return table
