"""Rendering of templates as HTML pages, each in one file that opens without a network."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import plotly.graph_objects as go
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.utils import PlotlyJSONEncoder

from jax_revinc.plots.theme import DARK, LIGHT
from revinc.printable_text import printable


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure on a page, with the values that change when a reader chooses another version.

    Attributes:
        figure: the figure of the first choice.
        axis: which of the page's choosers it follows, such as "sequence"; empty if none.
        versions: for every choice, values by their path in the figure's JSON, such as ``data.0.z``.
        part: the part of the model that it shows, such as ``{"layer": 1, "head": 0}``.
        caption: what it is called; by default the figure's title.
    """

    figure: go.Figure
    axis: str = ""
    versions: Sequence[Mapping[str, Any]] = ()
    part: Mapping[str, int] = field(default_factory=dict)
    caption: str = ""

    @property
    def label(self) -> str:
        """The text that a screen reader speaks for the picture."""
        return self.caption or str(self.figure.layout.title.text)

    @property
    def height(self) -> int | None:
        """The picture's height in pixels; None if it is to be as high as it is wide."""
        return self.figure.layout.height


Gallery = dict[str, Picture]
"""Pictures by name. The page draws each in the place of that name."""


def make_gallery(figures: Mapping[str, go.Figure]) -> Gallery:
    """Make a dict of `Picture` objects from a dict of figures that have only one version."""
    return {name: Picture(figure) for name, figure in figures.items()}


def render(
    template: str, gallery: Gallery, data: Mapping[str, Any], package: str = __package__
) -> str:
    """Render a template as an HTML page.

    Args:
        template: the file name of a template in the package's ``templates``.
        gallery: every picture that the template has a place for.
        data: what the template shows, by its names there. All text is escaped.
        package: the package of the template. It can extend and import those of `jax_revinc.report`.
    """
    page = make_environment(package).get_template(template)
    return page.render(data, figures=figure_data(gallery) if gallery else None)


@functools.cache
def make_environment(package: str = __package__) -> Environment:
    """The Jinja environment for a package's templates, which escapes HTML in what they insert."""
    loaders = [PackageLoader(name) for name in dict.fromkeys((package, __package__))]
    environment = Environment(
        autoescape=True,
        finalize=on_one_line,
        loader=ChoiceLoader(loaders),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {
        "cls": PlotlyJSONEncoder,
        "separators": (",", ":"),
    }
    environment.globals |= {"asset": asset, "light": LIGHT, "dark": DARK}
    return environment


def on_one_line(value: object) -> object:
    """Text without line breaks and other control characters; HTML (`Markup`) stays as it is."""
    return value if isinstance(value, Markup) else printable(value)


def figure_data(gallery: Gallery) -> dict[str, Any]:
    """The data that a page's script draws: pictures, and a Plotly template per colour scheme."""
    themes = {"light": LIGHT, "dark": DARK}
    return {
        "templates": {name: theme.template.to_plotly_json() for name, theme in themes.items()},
        "colours": {name: theme.colours() for name, theme in themes.items()},
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
    """A figure as JSON without its template, height and width, which the page's script sets."""
    drawn: dict[str, Any] = figure.to_plotly_json()
    for name in ("template", "height", "width"):
        drawn["layout"].pop(name, None)
    return drawn


def asset(name: str, package: str = __package__) -> Markup:
    """The text of a file in a package's folder ``assets``, made safe to put into an HTML page."""
    source = (resources.files(package) / "assets" / name).read_text(encoding="utf-8")
    return Markup(source.replace("</script", "<\\/script"))
