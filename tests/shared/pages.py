"""Reading pages: the figures inside them, the text that a reader sees, and scrolling in a browser."""

from __future__ import annotations

import json
import re
from html import unescape


def pictures_of(html):
    """The figures that a page's script draws, by name, as JSON with their versions."""
    data = re.search(r'<script type="application/json" id="pictures">(.*?)</script>', html, re.S)
    return json.loads(data[1])["pictures"]


def text_of(html):
    """What a reader reads, with plain spaces."""
    body = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", body)).replace("\u00a0", " "))


def table_of(html, caption):
    """The rows of the table with a caption, as lists of texts."""
    tables = re.findall(r"<table.*?</table>", html, flags=re.S)
    (table,) = [table for table in tables if f"<caption>{caption}</caption>" in table]
    rows = re.findall(r"<tr>(.*?)</tr>", table, flags=re.S)
    return [
        [text_of(cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, flags=re.S)]
        for row in rows
    ]


SEEN = """(place, scroll) => new Promise((seen) => {
    if (scroll) place.scrollIntoView({ block: "center" });
    new IntersectionObserver((_, observer) => seen(observer.disconnect())).observe(place);
})"""
"""Resolves when the page has drawn what is near the screen: a frame tells the oldest observer first."""


def wait_until_drawn(tab):
    """Wait until the figures near the screen are up to date."""
    tab.locator("body").evaluate(SEEN, False)


def look_at(tab, figure):
    """Scroll to a figure, and wait until it is up to date."""
    tab.locator(f"[data-figure='{figure}']").evaluate(SEEN, True)


def look_at_all(tab):
    """Scroll through the page, past every figure, and wait until each is up to date."""
    for place in tab.locator("[data-figure]:visible").all():
        place.evaluate(SEEN, True)


def assert_opens_offline_on_a_telephone(open_offline, page, figure):
    """A page asks for nothing but itself, draws a figure, and is no wider than a telephone."""
    tab, events = open_offline(page)
    look_at(tab, figure)
    assert tab.locator(f"[data-figure='{figure}'] .gtitle").is_visible()
    assert [e for e in events if not e.startswith("request: data:")] == [
        f"request: {page.as_uri()}"
    ]
    tab.set_viewport_size({"width": 390, "height": 800})
    tab.reload()
    look_at_all(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
