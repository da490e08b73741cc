import dataclasses
import sys

import pytest

from benchmarks.report import write_page


def test_a_page_has_tables_and_pictures(results, tmp_path):
    pytest.importorskip("matplotlib")
    text = write_page(results, tmp_path).read_text()
    for heading in (
        "Throughput",
        "Starting, and memory",
        "Exploring",
        "Waiting",
        "Whole run",
        "Cost against batch",
    ):
        assert f"\n## {heading}" in text
    for picture in ("throughput.svg", "sweeps.svg"):
        assert f"]({picture})" in text
        assert (tmp_path / picture).read_text().startswith("<?xml")
    assert "| a test's |" in text
    assert "`python -m benchmarks`" in text


def test_the_same_numbers_make_the_same_files(results, tmp_path):
    pytest.importorskip("matplotlib")
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_page(results, tmp_path / name)
        made.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert made[0] == made[1]


def test_without_matplotlib_there_are_no_pictures(results, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert ".svg" not in write_page(results, tmp_path).read_text()


def test_only_what_was_measured_is_on_the_page(results, tmp_path):
    text = write_page(dataclasses.replace(results, entries=[], sweeps={}), tmp_path).read_text()
    assert "## Whole run" in text
    assert "## Throughput" not in text
