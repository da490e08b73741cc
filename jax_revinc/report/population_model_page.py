"""The HTML page of one model of a population, ``model-N.html`` in the population's folder."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from jax_revinc.population import Population
from jax_revinc.population.export_model import export_model
from jax_revinc.report.page import report_page
from revinc.atomic_files import write_text


def write_population_model_page(population: Population, model: int) -> Path:
    """Write the page of a finished model into the folder of its population, and return its path.

    It is the page of the run that `export_model` makes of the model; no run folder stays.

    Args:
        population: the population.
        model: the model's number.

    Raises:
        UserError: if there is no such model, or it is not finished or has diverged.
        OSError: if the folder is not writable; an earlier page then stays as it was.
    """
    with TemporaryDirectory() as folder:
        run = export_model(population, model, Path(folder) / "run")
        names = {"population": population.path.resolve().name, "model": run.engine["model"]}
        page = report_page(run, names)
    path = population.path / f"model-{run.engine['model']}.html"
    write_text(path, page)
    return path
