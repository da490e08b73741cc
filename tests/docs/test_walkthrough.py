"""The notebook runs from top to bottom, and what is committed was made by such a run."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")

NOTEBOOK = Path(__file__).parents[2] / "docs" / "walkthrough.ipynb"
MOST_BYTES = 1_500_000


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds_of_output(cell):
    """What a cell shows: text on a stream, an error, or a value or picture by its media types."""
    return [
        (output.output_type, output.get("name"), sorted(output.get("data", {})))
        for output in cell.outputs
    ]


def shown_text(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            yield output.get("text", "")
            yield from output.get("data", {}).values()


def test_the_committed_notebook_is_valid_and_small(committed):
    nbformat.validate(committed)
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    counts = [cell.execution_count for cell in code_cells(committed)]
    assert counts == list(range(1, len(counts) + 1)), "execute all its cells in order, then save"


def test_what_it_shows_names_no_place_on_a_machine(committed):
    for text in shown_text(committed):
        assert not any(folder in text for folder in ("/home/", "/tmp/", "/Users/", "site-packages"))


@pytest.mark.slow
def test_it_runs_and_shows_the_same_kinds_of_output(committed, tmp_path):
    fresh = nbformat.from_dict(committed)
    for cell in code_cells(fresh):
        cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(
        fresh, timeout=600, record_timing=False, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # an error in a cell is raised here
    for new, old in zip(code_cells(fresh), code_cells(committed), strict=True):
        assert kinds_of_output(new) == kinds_of_output(old), (
            f"it shows something else:\n{new.source}"
        )
        assert not any(output.get("name") == "stderr" for output in new.outputs), new.outputs
