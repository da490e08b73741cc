"""Take one model out of a population, as a run folder of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from jax_revinc.population.read_population import Population
from jax_revinc.population.shards import DIVERGED
from jax_revinc.training import Run, draw_weights
from revinc import UserError
from revinc.best_evaluation import best_evaluation
from revinc.checkpoint import History
from revinc.engine import METRICS
from revinc.run_request import make_request
from revinc.run_writer import RunWriter
from revinc.runs import POPULATION
from revinc.validation import require_int


def best_model(population: Population) -> int:
    """The number of the finished model whose last evaluation is the best of all.

    What is better, `revinc.best_evaluation.best_evaluation` defines, here among models.

    Raises:
        UserError: if no model is finished, or all have diverged.
    """
    finite = population.metrics[population.metrics[DIVERGED].isna()]
    if finite.empty:
        raise UserError(f"{population.path} has no finished model that did not diverge")
    last = (finite[f"holdout_{name}"].to_numpy() for name in ("accuracy", "loss"))
    return int(finite.index[int(best_evaluation(*last))])


def export_model(
    population: Population, model: int, out: str | Path, *, overwrite: bool = False
) -> Run:
    """Write a finished model of a population into a run folder, and return the run.

    The folder is that of a run: config, initial and final weights, and the metrics of every
    evaluation. A population keeps no losses of batches, so the run has none. Its engine's record
    names the population and the model, so that the run can't be resumed.

    Args:
        population: the population.
        model: the model's number.
        out: the run folder.
        overwrite: replace the run in `out`.

    Raises:
        UserError: if there is no such model, it is not finished or has diverged, or `out` can't be
            used.
    """
    cfg, number = population.run_config(model), require_int("model", model)
    if number not in population.metrics.index:
        raise UserError(f"model {number} of {population.path} is not finished")
    if not population.metrics[DIVERGED].isna()[number]:
        raise UserError(f"model {number} of {population.path} has diverged")
    weights = {name: array[0] for name, array in population.params([number]).items()}
    row = population.metrics.index.get_loc(number)
    curves = {name: population.curves(name)[row].tolist() for name in METRICS}
    history = History()
    for i, step in enumerate(population.steps.tolist()):
        history = history.with_evaluation(step, {name: of[i] for name, of in curves.items()})
    request = make_request(cfg, out, overwrite=overwrite)
    origin = {POPULATION: population.path.resolve().name, "model": str(number)}
    with RunWriter(request, population.engine | origin, partial(draw_weights, cfg)) as writer:
        writer.save_snapshot(cfg.steps, weights)
        writer.finish(weights, history)
    return Run.load(request.out, type(cfg.task))
