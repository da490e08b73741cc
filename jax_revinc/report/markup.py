"""Small pieces of the report's HTML. Whatever comes from a run is escaped here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from plotly.utils import PlotlyJSONEncoder

from jax_revinc.report.contents import View

NO_SCRIPT = (
    "<noscript><p class='note'>The figures are drawn by a script inside this page, and scripts are "
    "switched off.</p></noscript>"
)


def text(value: object) -> str:
    """Text, escaped for HTML."""
    return escape(str(value))


def facts(entries: Mapping[str, object]) -> str:
    """A description list."""
    items = (f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in entries.items())
    return f"<dl>{''.join(items)}</dl>"


def settings_tables(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """A table for every section of a config."""
    return "".join(settings_table(name.capitalize(), section) for name, section in sections.items())


def settings_table(title: str, settings: Mapping[str, Any]) -> str:
    """One section of the config as a table of names and values."""
    rows = (
        f"<tr><th scope='row'>{text(name)}</th><td>{text(_setting(value))}</td></tr>"
        for name, value in settings.items()
    )
    return f"<table class='settings'><caption>{text(title)}</caption>{''.join(rows)}</table>"


def _setting(value: Any) -> str:
    if not isinstance(value, list | tuple):
        return str(value)
    if len(value) > 12:
        return f"{len(value)} steps, {value[0]} to {value[-1]}"
    return ", ".join(map(str, value)) or "none"


def place(
    figure: str, label: str, *, height: int | None = None, of: Mapping[str, int] | None = None
) -> str:
    """Where the script draws a figure: `height` pixels high, or about as high as it is wide.

    `of` says which "layer" and "head" it belongs to, for `filters`.
    """
    belongs = "".join(f" data-{name}='{number}'" for name, number in (of or {}).items())
    size = "class='plot square'" if height is None else f"class='plot' style='height:{height}px'"
    named = f"data-figure='{text(figure)}' role='img' aria-label='{text(label)}'"
    return f"<div class='card'{belongs}><div {size} {named}></div></div>"


def section(title: str, *parts: str) -> str:
    """A part of the page under a heading; empty if it has no parts."""
    inside = "".join(parts)
    return f"<section><h2>{text(title)}</h2>{inside}</section>" if inside else ""


def paragraph(words: str, kind: str = "legend") -> str:
    """A paragraph of plain words."""
    return f"<p class='{kind}'>{text(words)}</p>"


def bullets(sentences: Iterable[str]) -> str:
    """A list of sentences."""
    return f"<ul>{''.join(f'<li>{text(sentence)}</li>' for sentence in sentences)}</ul>"


def table(caption: str, headings: Sequence[str], rows: Mapping[str, Sequence[str | bool]]) -> str:
    """Named rows of texts and verdicts."""
    head = "".join(f"<th scope='col'>{text(heading)}</th>" for heading in headings)
    body = "".join(
        _row(name, (_mark(c) if isinstance(c, bool) else text(c) for c in cells))
        for name, cells in rows.items()
    )
    return (
        f"<div class='scroll'><table class='answers'><caption>{text(caption)}</caption>"
        f"<tr><td></td>{head}</tr>{body}</table></div>"
    )


def slider(axis: str, label: str, labels: Sequence[str]) -> str:
    """A slider over versions, at the last; `labels` say what each is."""
    items = "".join(f"<li>{text(item)}</li>" for item in labels)
    last = len(labels) - 1
    return (
        f"<form class='slider' data-axis='{axis}' autocomplete='off'><label>{text(label)} "
        f"<input type='range' min='0' max='{last}' value='{last}'></label>"
        f"<output aria-live='polite'></output><ul hidden>{items}</ul></form>"
    )


def filters(counts: Mapping[str, int]) -> str:
    """What of the heatmaps is shown: a choice for each of "layer" and "head" of which there are several."""
    selects = "".join(
        f"<label>{text(name)} <select name='{text(name)}'><option value='all'>all</option>"
        f"{''.join(f'<option>{i}</option>' for i in range(count))}</select></label>"
        for name, count in counts.items()
        if count > 1
    )
    return f"<form class='filter' autocomplete='off'>{selects}</form>" if selects else ""


def grid(places: Iterable[str]) -> str:
    """Places side by side, as far as the page is wide enough."""
    return f"<div class='grid'>{''.join(places)}</div>"


def view_chooser(views: Sequence[View]) -> str:
    """What the sequence is chosen by: from a list, by typing it, one by one, or the next mistake."""
    groups = {"holdout": "Holdout", "train": "Train", "": "All"}
    by_split = {
        split: [_option(i, view) for i, view in enumerate(views) if view.split == split]
        for split in groups
    }
    options = "".join(
        f"<optgroup label='{groups[split]}'>{''.join(of_split)}</optgroup>"
        for split, of_split in by_split.items()
        if of_split
    )
    return (
        "<form class='chooser' data-axis='sequence' autocomplete='off'>"
        f"<label>Sequence <select>{options}</select></label>"
        f"<label>or type it <input type='text' size='9' placeholder='{text(views[0].name)}'></label>"
        "<button type='button' data-move='-1'>← previous</button>"
        "<button type='button' data-move='1'>next →</button>"
        "<button type='button' data-move='mistake'>next mistake</button>"
        "<output aria-live='polite'></output></form>"
    )


def _option(index: int, view: View) -> str:
    wrong = view.right is not None and not view.right.all()
    mark = "" if view.right is None else " ✗" if wrong else " ✓"
    return (
        f"<option value='{index}' data-name='{text(view.name)}'{' data-wrong' if wrong else ''}>"
        f"{text(view.name)}{mark}</option>"
    )


def _mark(right: bool | np.bool) -> str:
    return "<b class='right'>✓</b>" if right else "<b class='wrong'>✗</b>"


def answers_table(index: int, view: View, columns: Sequence[str]) -> str:
    """What the model answered in a view, a column per predicted token. Only the first view's shows."""
    head = "".join(f"<th scope='col'>{text(column)}</th>" for column in columns)
    rows = [_row(title, map(text, texts)) for title, texts in view.answers.items()]
    if view.right is not None:
        rows.append(_row("right", map(_mark, view.right)))
    hidden = " hidden" if index else ""
    return (
        f"<table class='answers' data-sequence='{index}'{hidden}>"
        f"<tr><td></td>{head}</tr>{''.join(rows)}</table>"
    )


def _row(title: str, cells: Iterable[str]) -> str:
    cells = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr><th scope='row'>{text(title)}</th>{cells}</tr>"


def json_text(data: Any) -> str:
    """JSON that can stand inside a script element: no ``<`` in it."""
    return json.dumps(data, cls=PlotlyJSONEncoder, separators=(",", ":")).replace("<", "\\u003c")


def script_text(source: str) -> str:
    """JavaScript that can stand inside a script element, which must not end before it."""
    return source.replace("</script", "<\\/script")
