"""What a level of the judge is: its rows, each right or wrong, and what it has to say about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from plotly.graph_objects import Figure

TITLES = {
    "L0": "names and shapes",
    "L1": "forward: activations, logits, losses",
    "L2": "backward: gradients of the loss by activation and by parameter",
    "L3": "interventions: logits after four edits at every hook",
    "L4": "optimizer: one step",
    "L5": "one step of ours from every state of a torch run",
    "L6": "free running: when two runs from one beginning part",
    "L7": "population: what becomes of many seeds",
}


class Row(Protocol):
    """One thing that a level looked at. A dataclass, whose fields are what is kept of it."""

    @property
    def name(self) -> str: ...

    @property
    def passed(self) -> bool: ...

    def cells(self) -> dict[str, str]:
        """What a table shows of it, by heading; the same headings in every row of a level."""


@dataclass(frozen=True)
class Level:
    """What one level found in one precision.

    Attributes:
        name: "L0" to "L7".
        dtype: the precision that was compared, or "any".
        rows: what was looked at, in execution order where there is one.
        remarks: sentences: a diagnosis, or what can't be said in rows.
        figures: pictures for the page, by caption.
    """

    name: str
    dtype: str
    rows: Sequence[Row]
    remarks: list[str] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.name} {TITLES[self.name]}"

    @property
    def failures(self) -> list[Row]:
        return [row for row in self.rows if not row.passed]

    @property
    def passed(self) -> bool:
        """Whether every row is; a level that looked at nothing has not passed."""
        return bool(self.rows) and not self.failures
