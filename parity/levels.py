"""The levels of a parity check and their results: rows, each passed or failed, and remarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

TITLES = {
    "L0": "names and shapes",
    "L1": "forward: activations, logits, losses",
    "L2": "backward: gradients of the loss by activation and by parameter",
    "L3": "interventions: logits after four edits at every hook",
    "L4": "optimizer: one step",
    "L5": "training: one step from every state of a torch run",
    "L6": "free running: when two runs from one start diverge",
    "L7": "population: outcomes of many seeds",
}
"""The levels of the parity check: its comparisons, each of another aspect of the two models.

A new level needs a title here, a function in `parity.check.LEVELS` and an explanation in
`parity.level_explanations`; its rows say how much of their bound they use. A test compares the names.
"""


class Row(Protocol):
    """The result for one thing that a parity level compares, such as a tensor."""

    @property
    def name(self) -> str: ...

    @property
    def passed(self) -> bool: ...

    @property
    def known(self) -> str:
        """The reason why TransformerLens is known to differ in this row; empty if it is not."""

    @property
    def used(self) -> float:
        """The row's error divided by its bound: it fails above 1 (or, for a p-value, from 1 on).

        0 if both sides are equal, or if the row can't fail; infinite for a NaN, or where the bound
        is 0.
        """

    def cells(self) -> dict[str, str]:
        """The row as a dict from column heading to text; a level's rows have the same headings."""


@dataclass(frozen=True)
class Level:
    """The result of one level of the parity check in one precision.

    Attributes:
        name: "L0" to "L7".
        dtype: the precision that was compared, or "any".
        rows: what was looked at, in execution order where there is one.
        remarks: sentences: a diagnosis, or what can't be said in rows.
        evidence: data of the page's figures, by caption; `parity.plots.draw` draws them.
    """

    name: str
    dtype: str
    rows: Sequence[Row]
    remarks: list[str] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.name} {TITLES[self.name]}"

    @property
    def failures(self) -> list[Row]:
        return [row for row in self.rows if not row.passed]

    @property
    def passed(self) -> bool:
        """Whether every row has passed; a parity level without rows has not passed."""
        return bool(self.rows) and not self.failures


def share_of(part: float, whole: float) -> float:
    """``part / whole``; 0 if the part is 0, else infinite if the whole is 0 or there is a NaN."""
    if part == 0:
        return 0.0
    quotient = part / whole if whole else math.inf
    return math.inf if math.isnan(quotient) else quotient
