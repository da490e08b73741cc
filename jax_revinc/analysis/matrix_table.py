"""A matrix as a table for the terminal, in blocks of columns that fit its width."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from rich.console import Console, ConsoleOptions
from rich.table import Table

GAP = 2
"""Spaces around a column, as Rich puts them."""


@dataclass(frozen=True)
class MatrixTable:
    """A matrix with labelled rows and columns, which Rich can print.

    A matrix that is wider than the terminal is printed in blocks of columns, one below the other.

    Attributes:
        title: the heading.
        values: the numbers; NaN is left empty.
        rows: the label of each row.
        columns: the label of each column; by default its index.
        notes: a last column of words, headed ``predicts``.
        marked: cells (row, column) that get a star.
    """

    title: str
    values: Float[np.ndarray, "rows columns"]
    rows: Sequence[str]
    columns: Sequence[str] | None = None
    notes: Sequence[str] | None = None
    marked: Collection[tuple[int, int]] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        labels = list(self.columns or map(str, range(self.values.shape[1])))
        cells = [[self._cell(i, j) for j in range(len(labels))] for i in range(len(self.rows))]
        widths = [
            max(len(text) for text in (labels[j], *(row[j] for row in cells))) + GAP
            for j in range(len(labels))
        ]
        beside = max(map(len, ("", *self.rows))) + GAP
        if self.notes is not None:
            beside += max(map(len, ("predicts", *self.notes))) + GAP
        blocks = list(split(widths, options.max_width - beside))
        for columns in blocks:
            of = f", columns {columns[0]} to {columns[-1]}" if len(blocks) > 1 else ""
            table = Table(
                "", title=f"{self.title}{of}", title_justify="left", title_style="bold", box=None
            )
            for j in columns:
                table.add_column(labels[j], justify="right")
            if self.notes is not None:
                table.add_column("predicts", justify="right", style="bold")
            for i, label in enumerate(self.rows):
                note = [] if self.notes is None else [self.notes[i]]
                table.add_row(label, *(cells[i][j] for j in columns), *note)
            yield table

    def _cell(self, row: int, column: int) -> str:
        value = self.values[row, column]
        star = "*" if (row, column) in self.marked else ""
        return "" if np.isnan(value) else f"{value:z.3f}{star}"


def split(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Split columns of the given widths into blocks that fit the room, of one column at least."""
    block: list[int] = []
    used = 0
    for column, width in enumerate(widths):
        if block and used + width > room:
            yield block
            block, used = [], 0
        block.append(column)
        used += width
    yield block
