"""The tables of a report's page: of all levels, and of the rows of each. All text is escaped here."""

from __future__ import annotations

from collections.abc import Sequence

from jax_revinc.report.markup import text
from parity.levels import Level, Row
from parity.margins import known, worst

FEW_ROWS = 12
"""A table of more stands closed, unless something in it failed."""


def verdict(passed: bool) -> str:
    """The verdict in a word."""
    return "PASS" if passed else "FAIL"


def badge(passed: bool) -> str:
    """The verdict, to be seen from afar."""
    return f"<span class='badge {'right' if passed else 'wrong'}'>{verdict(passed)}</span>"


def summary_table(by_name: Sequence[Sequence[Level]]) -> str:
    """A row for every level and precision."""
    head = headings("level", "precision", "compared", "worst", "verdict")
    bodies = "".join(f"<tbody>{''.join(summary_rows(levels))}</tbody>" for levels in by_name)
    return (
        f"<table class='summary'><caption>All levels</caption><thead>{head}</thead>{bodies}</table>"
    )


def summary_rows(levels: Sequence[Level]) -> list[str]:
    """The rows of one level; its name, in the first, stands for all."""
    name, title = text(levels[0].name), text(levels[0].title)
    heading = f"<th scope='rowgroup' rowspan='{len(levels)}'><a href='#{name}'>{title}</a></th>"
    return [
        f"<tr class='{'' if level.passed else 'failed'}'>{'' if i else heading}"
        f"<td>{text(level.dtype)}</td><td>{len(level.rows)}</td>"
        f"<td>{text(worst(level))}</td><td>{badge(level.passed)}</td></tr>"
        for i, level in enumerate(levels)
    ]


def rows_table(level: Level) -> str:
    """All rows of a level, numbered in their order; those that failed come first."""
    numbered = sorted(enumerate(level.rows, 1), key=lambda entry: entry[1].passed)
    rows = "".join(row_of(number, row) for number, row in numbered)
    title = text(f"{level.title}, {level.dtype}")
    is_open = bool(level.failures) or len(level.rows) <= FEW_ROWS
    return (
        f"<details{' open' if is_open else ''}>"
        f"<summary>Table of all {len(level.rows)}, {text(level.dtype)} precision</summary>"
        f"<div class='rows' role='region' aria-label='{title}' tabindex='0'>"
        f"<table><caption>{title}</caption><thead>{headings('no.', *level.rows[0].cells())}</thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def row_of(number: int, row: Row) -> str:
    """A row's cells, the first its heading; and why it is known to differ, if it is."""
    name, *cells = map(text, row.cells().values())
    kind = "failed" if not row.passed else "known" if known(row) else ""
    why = f"<small>{text(known(row))}</small>" if known(row) else ""
    rest = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr class='{kind}'><td>{number}</td><th scope='row'>{name}{why}</th>{rest}</tr>"


def headings(*names: str) -> str:
    """The row of a table's head."""
    cells = "".join(f"<th scope='col'>{text(name)}</th>" for name in names)
    return f"<tr>{cells}</tr>"
