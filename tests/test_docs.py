"""What the README and the how-to pages tell a reader to type works as it stands."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
HOW_TO = [
    ROOT / "docs" / f"{page}.md"
    for page in (
        "train",
        "recipe",
        "models",
        "populate",
        "engines",
        "check_parity",
        "transformer_lens",
    )
]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def commands(page):
    """The words of every command line."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("pages", [[README], HOW_TO], ids=["README", "how-to"])
def test_every_python_block_runs(pages, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a reader's pages share a folder, and names within a page
    for page in pages:
        names: dict[str, object] = {}
        assert blocks(page, "python"), page
        for block in blocks(page, "python"):
            exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize(
    "page", [page for page in (README, *HOW_TO) if commands(page)], ids=lambda page: page.stem
)
def test_every_command_is_understood(page):
    for program, *words in commands(page):
        if program == "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            continue
        if program == "python":
            dash_m, program, *words = words
            assert dash_m == "-m"
        module = importlib.import_module(f"{program.replace('-', '_')}.__main__")
        module.make_parser().parse_args(words)


def test_every_picture_and_file_that_the_readme_names_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert "docs/report.png" in links
    for link in links:
        assert (README.parent / link).exists(), link


@pytest.mark.parametrize(
    "package", ["jax_revinc", "jax_revinc.population", "parity", "torch_reference", "revinc"]
)
def test_every_public_name_is_in_the_api(package):
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    described = set(re.findall(r"^\.\. autoapi\w+:: \S+\.(\w+)$", pages, re.MULTILINE))
    assert set(importlib.import_module(package).__all__) - described == set()
