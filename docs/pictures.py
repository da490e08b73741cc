"""Takes the pictures of the documentation from the pages of the demo (`make pictures`).

python docs/pictures.py RUN STORE
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH = 1150
"""Pixels of a picture, as of a window on a desktop."""

DRAWN = """() => new Promise((drawn) => {
    new IntersectionObserver((_, observer) => drawn(observer.disconnect())).observe(document.body);
})"""
"""Waits for the figures on the screen: they are drawn first, since a page's own observer is older."""


def main(run: Path, store: Path, folder: Path = Path(__file__).parent) -> None:
    """Take a picture of the top of each page, as high as here.

    Args:
        run: the demo's run folder.
        store: the demo's population.
        folder: where the pictures go.
    """
    pages = {
        "report": (run / "report.html", 1900),
        "parity": (run / "parity.html", 1700),
        "atlas": (store / "atlas.html", 1700),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, (page, height) in pages.items():
            tab = browser.new_page(viewport={"width": WIDTH, "height": height})
            tab.goto(page.resolve().as_uri())
            tab.evaluate(DRAWN)
            tab.screenshot(path=folder / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
