"""The script of a page: a figure is drawn when it is about to be seen, and once for each change."""

from __future__ import annotations

import re

import plotly.graph_objects as go
import pytest
from pages import look_at, look_at_all, wait_until_drawn

from jax_revinc.plots.theme import DARK, LIGHT
from jax_revinc.report.render_html import Picture, figure_data, make_environment

TEMPLATE = """
{% extends "base.html" %}{% import "macros.html" as ui %}
{% block sections %}
{{ ui.slider("step", "Step", ["first", "second"]) }}
<form class="filter"><select name="layer"><option>all</option><option>0</option></select></form>
{{ ui.grid(small, filtered=true) }}
{% for name, picture in large.items() %}{{ ui.place(name, picture) }}{% endfor %}
{% call ui.section("fold", "Folded", open=false) %}{{ ui.grid(folded) }}{% endcall %}
<p id="end">The end</p>
{% endblock %}
"""


def picture(title, height=None, **part):
    """A figure whose title says which of two versions it is."""
    versions = [{"layout.title.text": f"{title}, {step}"} for step in ("first", "second")]
    figure = go.Figure(go.Bar(y=[1]), {"height": height, "title": title})
    return Picture(figure, "step", versions, part)


TOP = {f"layer-{i}": picture(f"layer-{i}", layer=i) for i in range(2)}
LARGE = {f"large-{i}": picture(f"large-{i}", height=1000) for i in range(8)}
"""More than fit on a screen, and on the next one."""

FOLDED = {"folded": picture("folded", height=300)}
NAMES = [*TOP, *LARGE, *FOLDED]
COUNT = (
    "window.drawn = []; addEventListener('drawn', (e) => drawn.push(e.target.dataset.figure), true)"
)
SHAPES = """[...document.querySelectorAll("[data-figure]")].map((place) => [
    place.querySelector(".main-svg")?.clientWidth, place.clientWidth
])"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    template = make_environment().from_string(TEMPLATE)
    figures = figure_data(TOP | LARGE | FOLDED)
    html = template.render(small=TOP, large=LARGE, folded=FOLDED, figures=figures)
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture
def tab(open_offline, page):
    """The page, with a list of the figures that it has drawn."""
    tab, events = open_offline(page, COUNT)
    wait_until_drawn(tab)
    yield tab
    assert not [event for event in events if event.startswith("error")]


def newly_drawn(tab):
    """The figures drawn since the last call, once they are up to date near the screen."""
    wait_until_drawn(tab)
    return tab.evaluate("drawn.splice(0)")


def title(tab, figure):
    return tab.locator(f"[data-figure='{figure}'] .gtitle").text_content()


def colours(tab):
    """The colours of the titles of all figures that are drawn."""
    fills = tab.locator(".gtitle").evaluate_all("all => all.map((title) => title.style.fill)")
    return {"#{:02x}{:02x}{:02x}".format(*map(int, re.findall(r"\d+", fill))) for fill in fills}


def choose_the_first(tab):
    tab.locator(".slider input").evaluate(
        "slider => { slider.value = 0; slider.dispatchEvent(new Event('input')); }"
    )


def test_figures_out_of_sight_are_not_drawn_at_load(tab):
    assert sorted(newly_drawn(tab)) == ["large-0", "large-1", *TOP]


def test_scrolling_draws_each_figure_once_and_moves_nothing(tab):
    height = tab.evaluate("document.documentElement.scrollHeight")
    tab.locator("summary").click()
    unfolded = tab.evaluate("document.documentElement.scrollHeight")
    look_at_all(tab)
    assert sorted(newly_drawn(tab)) == sorted(NAMES)
    assert [title(tab, name) for name in NAMES] == [f"{name}, second" for name in NAMES]
    assert tab.evaluate("document.documentElement.scrollHeight") == unfolded > height
    look_at_all(tab)
    assert newly_drawn(tab) == []


def test_a_choice_shows_in_a_figure_when_it_is_scrolled_to(tab):
    look_at_all(tab)
    look_at(tab, "layer-0")
    newly_drawn(tab)
    choose_the_first(tab)
    near = newly_drawn(tab)
    assert sorted(near) == ["large-0", "large-1", *TOP]
    assert title(tab, "layer-0") == "layer-0, first"
    assert title(tab, "large-7") == "large-7, second"
    look_at(tab, "large-7")
    assert title(tab, "large-7") == "large-7, first"
    look_at_all(tab)
    assert sorted(near + newly_drawn(tab)) == sorted([*TOP, *LARGE])


def test_a_choice_shows_in_a_figure_that_was_folded(tab):
    choose_the_first(tab)
    newly_drawn(tab)
    tab.locator("summary").click()
    look_at(tab, "folded")
    assert title(tab, "folded") == "folded, first"
    assert newly_drawn(tab).count("folded") == 1


def test_another_colour_scheme_redraws_each_figure_once(tab):
    look_at_all(tab)
    newly_drawn(tab)
    tab.emulate_media(color_scheme="dark")
    look_at_all(tab)
    assert colours(tab) == {DARK.ink}
    assert sorted(newly_drawn(tab)) == sorted([*TOP, *LARGE])


def test_printing_draws_all_figures_at_once_light_and_as_wide_as_the_paper(tab):
    tab.emulate_media(color_scheme="dark")
    shapes = tab.evaluate(f"dispatchEvent(new Event('beforeprint')); {SHAPES}")
    assert {drawn for drawn, _ in shapes} == {width for _, width in shapes}
    assert 0 < max(width for _, width in shapes) < 680
    assert colours(tab) == {LIGHT.ink}
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    look_at_all(tab)
    assert colours(tab) == {DARK.ink}
    assert tab.evaluate(SHAPES)[2][0] > 680


def test_a_printer_gets_every_figure(tab):
    tab.pdf()
    assert set(newly_drawn(tab)) == set(NAMES)


def test_figures_follow_the_width_of_the_window(tab):
    tab.locator("summary").click()
    look_at_all(tab)
    wide = tab.evaluate(SHAPES)
    tab.locator("summary").click()
    tab.set_viewport_size({"width": 500, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") == 500
    tab.locator("summary").click()
    look_at_all(tab)
    narrow = tab.evaluate(SHAPES)
    assert all(drawn == width for drawn, width in wide + narrow)
    assert all(after < before for (after, _), (before, _) in zip(narrow, wide, strict=True))


def test_a_figure_that_remains_alone_fills_its_row(tab):
    two = tab.evaluate(SHAPES)
    tab.locator(".filter select").select_option("0")
    wait_until_drawn(tab)
    (one, width), hidden = tab.evaluate(SHAPES)[:2]
    assert one == width > two[0][0]
    assert hidden[1] == 0
    tab.locator(".filter select").select_option("all")
    wait_until_drawn(tab)
    assert tab.evaluate(SHAPES)[:2] == two[:2]


def test_an_address_leads_to_its_place(open_offline, page):
    tab, _ = open_offline(page)
    tab.goto(f"{page.as_uri()}#end")
    wait_until_drawn(tab)
    assert 0 <= tab.get_by_text("The end").bounding_box()["y"] < 900
    assert tab.locator("[data-figure='large-7'] .gtitle").is_visible()
    assert tab.locator("[data-figure='large-4'] .gtitle").count() == 0
