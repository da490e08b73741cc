"""What the README and the how-to pages tell a reader to type works as it stands."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from jax_revinc.commands import train as train_command

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
WORDS, LINES, COLUMNS = 1000, 120, 100
HOW_TO = [
    ROOT / "docs" / f"{page}.md"
    for page in (
        "tour",
        "train",
        "training_config",
        "models",
        "populate",
        "engines",
        "check_parity",
        "transformer_lens",
    )
]
COMMANDS_ONLY = [ROOT / "docs" / "index.md", ROOT / "docs" / "grokking.md"]
"""Pages whose Python is not run here; `test_tasks_page` runs the page on tasks."""


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def commands(page):
    """The words of every command line."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize(
    "pages",
    [
        pytest.param([README], id="README"),
        pytest.param(HOW_TO, id="how-to", marks=pytest.mark.slow),
    ],
)
def test_every_python_block_runs(pages, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a reader's pages share a folder, and names within a page
    for page in pages:
        names: dict[str, object] = {}
        assert blocks(page, "python"), page
        for block in blocks(page, "python"):
            exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize(
    "page",
    [page for page in (README, *HOW_TO, *COMMANDS_ONLY) if commands(page)],
    ids=lambda page: page.stem,
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
        args = module.make_parser().parse_args(words)
        if program.startswith("jax") and hasattr(args, "words"):  # the subcommand parses them
            importlib.import_module(f"jax_revinc.commands.{words[0]}").parse(args.words)


def test_every_picture_and_file_that_the_readme_names_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert "docs/report.png" in links
    for link in links:
        assert (README.parent / link).exists(), link


def test_the_readme_is_short():
    text = README.read_text()
    assert len(text.split()) <= WORDS
    assert len(text.splitlines()) <= LINES
    assert [line for line in text.splitlines() if len(line) > COLUMNS] == []


def test_no_page_includes_the_readme():
    pages = (ROOT / "docs").rglob("*.md")
    assert [page.name for page in pages if "README.md\n" in page.read_text()] == []


@pytest.mark.parametrize(
    "package", ["jax_revinc", "jax_revinc.population", "parity", "torch_reference", "revinc"]
)
def test_every_public_name_is_in_the_api(package):
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    described = set(re.findall(r"^\.\. autoapi\w+:: \S+\.(\w+)$", pages, re.MULTILINE))
    assert set(importlib.import_module(package).__all__) - described == set()


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [None, 4, 8, 16], ids=lambda lanes: f"{lanes} lanes")
def test_what_a_newcomer_trains_first_solves_the_task(lanes, tmp_path, monkeypatch):
    from jax_revinc import train
    from jax_revinc.engines.fused import spec
    from jax_revinc.engines.fused_engine import fused_programs

    train_page = ROOT / "docs" / "train.md"
    shown = next(words for words in commands(train_page) if words[:2] == ["jax-revinc", "train"])
    cfg, _ = train_command.parse(shown[2:])
    monkeypatch.setattr(spec, "lane_width", lambda _: lanes)
    fused_programs.cache_clear()
    run = train(cfg, tmp_path / "run", engine="fused" if lanes else "xla")
    fused_programs.cache_clear()
    for split in ("train", "holdout"):
        assert run.metrics[f"{split}_accuracy"].iloc[-1] == 1
