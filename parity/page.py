"""The page of a report: the verdict, and for each level what it compared, how strictly, and what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from plotly.graph_objects import Figure

from jax_revinc.report import markup, shell
from jax_revinc.report.markup import text
from jax_revinc.report.shell import Gallery, Picture
from parity.explanations import BOUNDS, EXPLANATIONS
from parity.levels import Level, Row
from parity.margins import known, worst
from parity.report import Report
from parity.strips import Scale, strip
from parity.tables import badge, rows_table, summary_table, verdict
from revinc.atomic import write_atomically


def write_page(report: Report, path: Path) -> Path:
    """Write the page of a report to `path`, and return it.

    Raises:
        OSError: if it can't be written; an earlier page is then as it was.
    """
    page = parity_page(report)
    write_atomically(path, lambda file: file.write_text(page, encoding="utf-8"))
    return path


@dataclass
class Album:
    """The figures of a page, which get their names as they are placed."""

    gallery: Gallery = field(default_factory=dict)

    def place(self, caption: str, figure: Figure) -> str:
        """HTML where the figure is drawn, over its caption."""
        name = f"figure-{len(self.gallery)}"
        self.gallery[name] = Picture(figure)
        place = markup.place(name, caption, height=340)
        return f"<figure>{place}<figcaption>{text(caption)}</figcaption></figure>"


def parity_page(report: Report) -> str:
    """The page as HTML."""
    album = Album()
    sections = "".join(section(levels, album) for levels in by_name(report.levels))
    body = Template(shell.asset(__package__, "report.html")).substitute(
        badge=badge(report.passed),
        headline=text(headline(report)),
        subject=text(report.subject),
        scores=markup.facts(scores(report)),
        summary=summary_table(by_name(report.levels)),
        versions=markup.facts(report.versions),
        bounds=markup.facts(BOUNDS),
        noscript=markup.NO_SCRIPT if album.gallery else "",
        sections=sections,
        config=markup.settings_tables(in_sections(report.config)),
    )
    title = f"{verdict(report.passed)} · {report.subject}"
    return shell.make_page(title, body, album.gallery, shell.asset(__package__, "report.css"))


def by_name(levels: Sequence[Level]) -> list[list[Level]]:
    """The levels, those of one name and several precisions together."""
    names = dict.fromkeys(level.name for level in levels)
    return [[level for level in levels if level.name == name] for name in names]


def headline(report: Report) -> str:
    """The verdict in words."""
    if report.passed:
        differs = any(known_differences(level) for level in report.levels)
        return "No difference found but known ones" if differs else "No difference found"
    failed = dict.fromkeys(level.name for level in report.levels if not level.passed)
    return f"Different at {', '.join(failed)}"


def known_differences(level: Level) -> list[Row]:
    """The rows that differ and may."""
    return [row for row in level.rows if row.passed and known(row)]


def scores(report: Report) -> dict[str, str]:
    """How much was compared, and with what result."""
    counted = {
        "Compared": sum(len(level.rows) for level in report.levels),
        "Failed": sum(len(level.failures) for level in report.levels),
        "Different, as known": sum(len(known_differences(level)) for level in report.levels),
    }
    return {what: f"{number:,}" for what, number in counted.items()}


def section(levels: Sequence[Level], album: Album) -> str:
    """A level in all its precisions: what it is, what it found, its own figures, its tables."""
    name, title = levels[0].name, levels[0].title
    scale = Scale(levels)
    found = "".join(findings(level, scale, album) for level in levels)
    figures = [album.place(*picture) for level in levels for picture in level.figures.items()]
    return (
        f"<section id='{text(name)}'><h2>{text(title)}</h2><p>{text(EXPLANATIONS[name])}</p>"
        f"<div class='grid findings'>{found}</div>{markup.grid(figures) if figures else ''}"
        f"{''.join(rows_table(level) for level in levels if level.rows)}</section>"
    )


def findings(level: Level, scale: Scale, album: Album) -> str:
    """What a level found in one precision, in short and as a chart."""
    counted = {
        "Compared": len(level.rows),
        "Failed": len(level.failures),
        "Worst": worst(level),
    }
    chart = strip(level, scale)
    remarks = "".join(f"<li>{text(remark)}</li>" for remark in level.remarks)
    return (
        f"<div><h3>{badge(level.passed)} {text(level.dtype)} precision</h3>{markup.facts(counted)}"
        f"{album.place(f'{level.dtype}: the error of every tensor over its bound', chart) if chart else ''}"
        f"{f'<ul>{remarks}</ul>' if remarks else ''}</div>"
    )


def in_sections(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A config's sections; what is in none comes last, in one of its own."""
    sections = {name: part for name, part in config.items() if isinstance(part, Mapping)}
    rest = {name: value for name, value in config.items() if name not in sections}
    return sections | ({"other": rest} if rest else {})
