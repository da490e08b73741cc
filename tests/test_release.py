"""The links of the README on a package page; `make release` checks the packages themselves."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
RELEASE = runpy.run_path(str(ROOT / ".ci" / "release.py"))


def test_relative_links_are_found_and_made_absolute():
    page = "![a picture](docs/a.png) [a page](docs/b.md#part) [elsewhere](https://example.org/c)"
    assert RELEASE["relative_links"](page) == ["docs/a.png", "docs/b.md"]
    assert RELEASE["absolute_links"](page, "https://example.org/me/it/", "v1") == (
        "![a picture](https://example.org/me/it/raw/v1/docs/a.png) "
        "[a page](https://example.org/me/it/blob/v1/docs/b.md#part) "
        "[elsewhere](https://example.org/c)"
    )


def test_no_link_of_the_readme_stays_relative():
    text = (ROOT / "README.md").read_text()
    assert len(RELEASE["relative_links"](text)) > 10
    made = RELEASE["absolute_links"](text, "https://example.org/me/it", "v1")
    assert RELEASE["relative_links"](made) == []


def test_the_readmes_pictures_and_pages_are_in_the_sdist():
    grafted = [line.split()[1] for line in (ROOT / "MANIFEST.in").read_text().splitlines()]
    for link in RELEASE["relative_links"]((ROOT / "README.md").read_text()):
        assert link.partition("/")[0] in grafted or "/" not in link, link
