"""What every page is made in: one file that opens without a network, with all of its figures inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Any

import plotly.graph_objects as go

from jax_revinc.report import markup
from jax_revinc.report.theme import DARK, LIGHT


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, and what is otherwise in it for every choice that a reader has.

    Attributes:
        figure: as it is for the first choice. Its traces have the theme's colours in turn, or those whose names,
            such as "holdout", it gives as ``layout.meta.colours``.
        axis: which of the page's choosers it follows, such as "sequence"; none by default.
        versions: for every choice, values by their path in the figure's JSON, such as ``data.0.z``.
    """

    figure: go.Figure
    axis: str = ""
    versions: Sequence[Mapping[str, Any]] = ()


Gallery = dict[str, Picture]
"""Pictures by the name of their place."""


def make_page(title: str, body: str, gallery: Gallery, style: str = "", script: str = "") -> str:
    """A page as HTML.

    Args:
        title: the window's.
        body: HTML, with a place for every figure of `gallery`.
        gallery: what the page's script draws.
        style: a style sheet, beside the one that all pages share.
        script: likewise a script, which comes after the shared one.
    """
    return Template(asset(__package__, "shell.html")).substitute(
        title=markup.text(title),
        light=LIGHT.css_variables(),
        dark=DARK.css_variables(),
        style=asset(__package__, "page.css") + style,
        body=body,
        scripts=scripts(gallery, script) if gallery else "",
    )


def scripts(gallery: Gallery, script: str) -> str:
    """The figures, and what draws them; then a page's own script."""
    return Template(asset(__package__, "scripts.html")).substitute(
        pictures=markup.json_text(as_json(gallery)),
        plotly=markup.script_text(asset(__package__, "plotly-cartesian.min.js")),
        script=markup.script_text(asset(__package__, "page.js") + script),
    )


def as_json(gallery: Gallery) -> dict[str, object]:
    """What the page's script draws: the figures, and a template for each colour scheme."""
    return {
        "templates": {
            "light": LIGHT.template().to_plotly_json(),
            "dark": DARK.template().to_plotly_json(),
        },
        "colours": {"light": LIGHT.colours(), "dark": DARK.colours()},
        "pictures": {
            name: {
                "figure": without_template(picture.figure),
                "axis": picture.axis,
                "versions": picture.versions,
            }
            for name, picture in gallery.items()
        },
    }


def without_template(figure: go.Figure) -> dict[str, Any]:
    """A figure as JSON, but for its template: that is the page's."""
    drawn: dict[str, Any] = figure.to_plotly_json()
    drawn["layout"].pop("template", None)
    return drawn


def asset(package: str, name: str) -> str:
    """The text of a file in a package's ``assets``."""
    return (resources.files(package) / "assets" / name).read_text(encoding="utf-8")
