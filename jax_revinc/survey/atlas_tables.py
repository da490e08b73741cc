"""The tables of an atlas, the page about a population: models, hyperparameters, curves, claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool

from jax_revinc.analysis.increment import component_labels, heads_among_components
from jax_revinc.population import Population
from jax_revinc.population.shards import DIVERGED
from jax_revinc.population.success_rate import by_point
from jax_revinc.survey.outcomes import OUTCOME, groups, outcomes, scopes
from jax_revinc.survey.rate_intervals import Rate, compare_rates, mean_interval, rate_of
from revinc import HookedTransformerConfig, Task
from revinc.atomic_files import write_atomically
from revinc.engine import METRICS
from revinc.sweep import SWEPT
from revinc.tasks import reading_cells

QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}

BEST_READING = "best_reading"
"""The column of the attention on the deciding tokens: for each the head that reads it most,
averaged over answers."""

ANY = {"heads": "any head", "mlps": "any MLP"}
NO_COMPONENT = "no component"

WHOLE = "the model"
"""The part that a claim about no single component is about."""

BOTH = "tutorial"
"""The claim that both of the tutorial's claims hold: attention reverses, and an MLP increments."""


def models_table(population: Population, claims: pd.DataFrame | None) -> pd.DataFrame:
    """A table with a row per model: hyperparameters, seeds, outcome, metrics, its best evaluation and claims.

    Args:
        population: finished models.
        claims: of the models that did not diverge, from `survey_claims`; None if the task allows
            none.
    """
    metrics = population.metrics
    models = metrics.assign(**{OUTCOME: outcomes(metrics, population.config.task.solved)})
    models = models.join(population.best)
    if claims is None:
        return models
    cfg, task = population.config.model, population.config.task
    summed = {
        f"increment_share.{kind}": claims[[f"increment_share.{part}" for part in parts]].sum(axis=1)
        for kind, parts in component_kinds(cfg).items()
    }
    read = {BEST_READING: best_reading(claims, cfg, task)}
    claims = claims.assign(**read, **summed)
    # A model that diverged has no claims, and plain booleans can't be missing.
    nullable = {name: "boolean" for name, dtype in claims.dtypes.items() if dtype.kind == "b"}
    return models.join(claims.astype(nullable))


def component_kinds(cfg: HookedTransformerConfig) -> dict[str, tuple[str, ...]]:
    """The names of a model's components, by kind: its heads, and its MLPs if it has any."""
    components = component_labels(cfg)
    heads = heads_among_components(cfg)
    mlps = components[heads.stop :]
    return {"heads": components[heads]} | ({"mlps": mlps} if mlps else {})


def best_reading(claims: pd.DataFrame, cfg: HookedTransformerConfig, task: Task) -> pd.Series:
    """For each model, the attention of its best head to the token that decides an answer.

    The best head is the one that attends most to that token; the mean over answers is returned.
    """
    heads = component_kinds(cfg)["heads"]
    cells = reading_cells(task)
    fetched = [cell for cell in cells if cell[0] != cell[1]] or cells
    answers = [task.position_labels[row + 1] for row, _ in fetched]
    best = [
        claims[[f"reading.{head}.{answer}" for head in heads]].max(axis=1) for answer in answers
    ]
    return pd.concat(best, axis=1).mean(axis=1)


def points_table(models: pd.DataFrame, solved: float) -> pd.DataFrame:
    """A table with a row per combination of hyperparameters: success, divergence, mean accuracy.

    Args:
        models: from `models_table`, or `Population.metrics`.
        solved: the accuracy from which a split counts as solved, the task's.
    """
    counted = by_point(models, solved)
    n = counted["models"]
    for name in ("train_perfect", "holdout_perfect", DIVERGED.removesuffix("_at")):
        rates = [Rate(*pair).columns(f"{name}_") for pair in zip(counted[name], n, strict=True)]
        counted = counted.join(pd.DataFrame(rates))
    grouped = models.groupby(list(SWEPT), sort=True)
    for accuracy in ("train_accuracy", "holdout_accuracy"):
        bounds = [mean_interval(values) for _, values in grouped[accuracy]]
        counted[[f"{accuracy}_low", f"{accuracy}_high"]] = bounds
    return counted


def curves_table(population: Population, models: pd.DataFrame) -> pd.DataFrame:
    """A table of quantiles of every metric at every evaluation, by group of models."""
    parts = []
    for metric in METRICS:
        curves = pd.DataFrame(population.curves(metric), index=models.index)
        for scope, mask in scopes(models).items():
            quantiles = curves[mask].quantile(list(QUANTILES.values())).to_numpy()
            columns = {"scope": scope, "metric": metric, "step": population.steps}
            columns["models"] = curves[mask].notna().sum().to_numpy()
            parts.append(pd.DataFrame(columns | dict(zip(QUANTILES, quantiles, strict=True))))
    return pd.concat(parts, ignore_index=True)


def claims_by_part(
    models: pd.DataFrame, cfg: HookedTransformerConfig
) -> dict[tuple[str, str], Bool[np.ndarray, " models"]]:
    """For each claim and the part of a model that it is about, for which models it holds."""
    kinds, components = component_kinds(cfg), component_labels(cfg)

    def any_increments(parts: Iterable[str]) -> pd.Series:
        return models[[f"increments.{part}" for part in parts]].any(axis=1)

    reverses = models["attention_reverses"]
    found = {("attention_reverses", WHOLE): reverses}
    if "mlps" in kinds:
        found[BOTH, WHOLE] = reverses & any_increments(kinds["mlps"])
    found |= {("head_reverses", part): models[f"head_reverses.{part}"] for part in kinds["heads"]}
    for claim in ("increments", "necessary", "sufficient"):
        found |= {(claim, part): models[f"{claim}.{part}"] for part in components}
    found |= {("increments", ANY[kind]): any_increments(parts) for kind, parts in kinds.items()}
    found["increments", NO_COMPONENT] = ~any_increments(components)
    return {key: holds.to_numpy(dtype=bool, na_value=False) for key, holds in found.items()}


def claims_table(models: pd.DataFrame, cfg: HookedTransformerConfig) -> pd.DataFrame:
    """A table of how often each claim holds, by part of the model and group of models.

    The column `compared` says whether it holds more often of the models that generalise.
    """
    rows = []
    for (claim, part), holds in claims_by_part(models, cfg).items():
        rates = {name: rate_of(holds[mask]) for name, mask in groups(models).items()}
        verdict = compare_rates(rates["generalising"], rates["not generalising"])
        for group, rate in rates.items():
            named = {"claim": claim, "part": part, "group": group}
            rows.append({**named, **rate._asdict(), **rate.columns(), "compared": verdict})
    return pd.DataFrame(rows)


def shares_table(models: pd.DataFrame, cfg: HookedTransformerConfig) -> pd.DataFrame:
    """Quantiles of the share of the answers' logits that a component makes, by group of models."""
    rows = []
    for part in (*component_labels(cfg), *component_kinds(cfg)):
        shares = models[f"increment_share.{part}"]
        for group, mask in groups(models).items():
            quantiles = shares[mask].astype(float).quantile(list(QUANTILES.values()))
            numbers = dict(zip(QUANTILES, quantiles, strict=True))
            rows.append({"part": part, "group": group, "models": int(mask.sum()), **numbers})
    return pd.DataFrame(rows)


def write_tables(tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Write every table as Parquet and as CSV; an interrupted write leaves no partial file.

    Raises:
        OSError: if the disk is full or not writable.
    """
    for name, table in tables.items():
        has_names = table.index.name is not None
        write_atomically(folder / f"{name}.parquet", partial(table.to_parquet, index=has_names))
        write_atomically(folder / f"{name}.csv", partial(table.to_csv, index=has_names))
