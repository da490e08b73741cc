"""Known differences of the installed TransformerLens from 3.9, which the parity check must find."""

from __future__ import annotations

from dataclasses import replace

from parity.comparison import Comparison
from torch_reference import adapter


def with_known_differences(level: str, comparisons: list[Comparison]) -> list[Comparison]:
    """Mark the tensors in which TransformerLens is known to differ from 3.9, with the reason."""
    return [
        replace(
            row,
            known=next(
                (
                    difference.why
                    for difference in adapter.KNOWN_DIFFERENCES
                    if difference.level == level and row.name.endswith(difference.name)
                ),
                "",
            ),
        )
        for row in comparisons
    ]
