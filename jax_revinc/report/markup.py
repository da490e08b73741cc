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


def place(figure: str, label: str, *, height: int | None = None) -> str:
    """Where the script draws a figure: `height` pixels high, or about as high as it is wide."""
    size = "class='plot square'" if height is None else f"class='plot' style='height:{height}px'"
    named = f"data-figure='{text(figure)}' role='img' aria-label='{text(label)}'"
    return f"<div class='card'><div {size} {named}></div></div>"


def grid(places: Iterable[str]) -> str:
    """Places side by side, as far as the page is wide enough."""
    return f"<div class='grid'>{''.join(places)}</div>"


def view_chooser(views: Sequence[View]) -> str:
    """Radio buttons, one per view. The first is chosen."""
    buttons = (
        f"<label><input type='radio' name='view' value='{i}'{'' if i else ' checked'}>"
        f"<span>{text(view.name)}{_verdict(view)}</span></label>"
        for i, view in enumerate(views)
    )
    return f"<fieldset class='views'><legend>Sequence</legend>{''.join(buttons)}</fieldset>"


def _verdict(view: View) -> str:
    return "" if view.right is None else f" {_mark(view.right.all())}"


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
        f"<table class='answers' data-view='{index}'{hidden}>"
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
