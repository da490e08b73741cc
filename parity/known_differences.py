"""Where the installed TransformerLens is known to do otherwise than 3.9: asserted as differences."""

from __future__ import annotations

from dataclasses import replace

from parity.comparison import Comparison
from torch_reference import adapter


def with_known_differences(level: str, comparisons: list[Comparison]) -> list[Comparison]:
    """The comparisons, those marked that the installed TransformerLens is known to do its own way."""
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
