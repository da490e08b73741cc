"""The HTML page of a parity check: the verdict, then each level with its explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jax_revinc.report.render_html import Gallery, Picture, render
from parity.level_explanations import BOUNDS, EXPLANATIONS
from parity.levels import Level, Row
from parity.plots import Scale, draw, error_figure
from parity.report import Report
from parity.worst_row import worst
from revinc.atomic_files import write_text

FEW_ROWS = 12
"""A table with more rows is closed at first, unless something in it failed."""


def write_page(report: Report, path: Path) -> Path:
    """Write the HTML page of a report to `path`, and return the path.

    Raises:
        OSError: if it can't be written; an earlier page then stays as it was.
    """
    page = parity_page(report)
    write_text(path, page)
    return path


def parity_page(report: Report) -> str:
    """Render the HTML page of a parity check's report, and return its text."""
    sections = [section_data(levels) for levels in by_name(report.levels)]
    return render(
        "parity.html",
        {name: picture for part in sections for name, picture in part["pictures"].items()},
        {
            "passed": report.passed,
            "headline": headline(report),
            "subject": report.subject,
            "scores": counts(report),
            "sections": sections,
            "versions": report.versions,
            "bounds": BOUNDS,
            "settings": in_sections(report.config),
        },
        __package__,
    )


def by_name(levels: Sequence[Level]) -> list[list[Level]]:
    """Group the results of a parity check by level: a group is one level in all its precisions."""
    names = dict.fromkeys(level.name for level in levels)
    return [[level for level in levels if level.name == name] for name in names]


def headline(report: Report) -> str:
    """The page's headline: the verdict of the check, in words."""
    if report.passed:
        differs = any(known_differences(level) for level in report.levels)
        return "No difference found except known ones" if differs else "No difference found"
    failed = dict.fromkeys(level.name for level in report.levels if not level.passed)
    return f"Different at {', '.join(failed)}"


def known_differences(level: Level) -> list[Row]:
    """The rows of a parity level that show a known difference of the installed TransformerLens."""
    return [row for row in level.rows if row.passed and row.known]


def counts(report: Report) -> dict[str, str]:
    """The total numbers of comparisons, failures and known differences, by the page's label."""
    counted = {
        "Compared": sum(len(level.rows) for level in report.levels),
        "Failed": sum(len(level.failures) for level in report.levels),
        "Different, as known": sum(len(known_differences(level)) for level in report.levels),
    }
    return {name: f"{number:,}" for name, number in counted.items()}


def section_data(levels: Sequence[Level]) -> dict[str, Any]:
    """The data of the page's section on one parity level, in all its precisions."""
    name = levels[0].name
    errors = [error_picture(level, Scale(levels)) for level in levels]
    evidence = evidence_gallery(levels)
    return {
        "name": name,
        "title": levels[0].title,
        "explanation": EXPLANATIONS[name],
        "results": [
            {"level": level, "worst": worst(level), "errors": gallery, **row_table(level)}
            for level, gallery in zip(levels, errors, strict=True)
        ],
        "evidence": evidence,
        "pictures": {
            n: picture for gallery in (*errors, evidence) for n, picture in gallery.items()
        },
    }


def error_picture(level: Level, scale: Scale) -> Gallery:
    """The figure of each tensor's error over its bound, by name; no figure if all bounds are 0."""
    figure = error_figure(level, scale)
    caption = f"{level.dtype}: the error of every tensor over its bound"
    name = f"errors-{level.name}-{level.dtype}"
    return {} if figure is None else {name: Picture(figure, caption=caption)}


def evidence_gallery(levels: Sequence[Level]) -> Gallery:
    """The figures, by name, drawn from the data (evidence) that parity levels keep for the page."""
    return {
        f"{level.name}-{level.dtype}-{i}": Picture(draw(evidence), caption=caption)
        for level in levels
        for i, (caption, evidence) in enumerate(level.evidence.items())
    }


def row_table(level: Level) -> dict[str, Any]:
    """The rows of a parity level, failures first, and whether their table is shown unfolded."""
    rows = sorted(enumerate(level.rows, 1), key=lambda entry: entry[1].passed)
    return {"rows": rows, "is_open": bool(level.failures) or len(rows) <= FEW_ROWS}


def in_sections(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Split a config into its sections, by name; top-level fields form a section "other"."""
    sections = {name: part for name, part in config.items() if isinstance(part, Mapping)}
    rest = {name: value for name, value in config.items() if name not in sections}
    return sections | ({"other": rest} if rest else {})
