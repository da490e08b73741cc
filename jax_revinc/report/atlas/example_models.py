"""Choose the models that an atlas page shows one by one, and collect what it shows of each."""

from __future__ import annotations

from typing import Any

import pandas as pd

from jax_revinc.analysis.increment import component_labels
from jax_revinc.analysis.snapshots import mean_patterns
from jax_revinc.plots import scatterplot
from jax_revinc.population import Population
from jax_revinc.report.atlas.training_commands import (
    export_command,
    report_command,
    train_command,
)
from jax_revinc.report.render_html import Gallery, Picture
from jax_revinc.report.run_figures import pattern_pictures
from jax_revinc.survey.claims import claims_of
from jax_revinc.survey.outcomes import DIVERGES, OUTCOME, OUTCOMES, point_name
from revinc import HookedTransformerConfig
from revinc.config import SEEDS
from revinc.number_format import percentage

MODEL = "model"
"""The chooser of the model that is shown."""

MOST_MODELS = 300
MOST_NUMBERS = 100_000
"""Attention probabilities of all shown models together, to keep the page small."""

OF_EACH_KIND = 3
"""Models that are shown of every kind, however rare, before the others are drawn."""


def chosen_models(models: pd.DataFrame, cfg: HookedTransformerConfig, n_fed: int) -> pd.DataFrame:
    """Choose the models to show one by one: a few of every kind of outcome, the rest at random.

    The random choice has a fixed seed. Models are of one kind if they have the same outcome and,
    where there are claims, the same answers to whether attention reverses and which components
    increment. Models that diverged are not shown.

    Args:
        models: the atlas' table of models.
        cfg: their model config.
        n_fed: positions that a model is fed.
    """
    finite = models[models[OUTCOME] != DIVERGES]
    claimed = ["attention_reverses", *(f"increments.{part}" for part in component_labels(cfg))]
    kind = [OUTCOME, *(name for name in claimed if name in finite)]
    shuffled = finite.sample(frac=1, random_state=0)
    rank = shuffled.groupby(kind).cumcount().clip(upper=OF_EACH_KIND)
    room = MOST_NUMBERS // (cfg.n_layers * cfg.n_heads * n_fed**2)
    chosen = shuffled.loc[rank.sort_values(kind="stable").index[: max(1, min(MOST_MODELS, room))]]
    order = chosen[OUTCOME].map(list(OUTCOMES).index)
    return chosen.sort_index().loc[order.sort_index().sort_values(kind="stable").index]


def head_patterns(population: Population, chosen: pd.DataFrame) -> Gallery:
    """Pictures of every head's mean attention pattern, in which a reader can choose the model."""
    cfg, task = population.config.model, population.config.task
    patterns = mean_patterns(cfg, population.params(chosen.index.to_numpy()), task)
    labels = [task.position_labels[:-1]] * len(chosen)
    return pattern_pictures("pattern", list(patterns), labels, MODEL, task)


def scatter_picture(chosen: pd.DataFrame) -> Picture:
    """A scatter plot of the chosen models, and the values of every quantity that a reader may
    choose for either axis.
    """
    quantities = scatterplot.scatter_quantities(chosen)
    figure = scatterplot.scatter(chosen, *quantities[:2])
    by_outcome = scatterplot.split_by_outcome(chosen).values()
    places = dict(zip(chosen.index, range(len(chosen)), strict=True))
    for trace, part in zip(figure.data, by_outcome, strict=True):
        trace.customdata = [places[model] for model in part.index]
        trace.text = [short_name(model, row) for model, row in part.iterrows()]
    figure.add_scatter(
        name="shown below",
        mode="markers",
        marker={"size": 17, "symbol": "circle-open", "line": {"width": 3}},
        hoverinfo="skip",
    )
    axes = {
        quantity: {
            "values": [scatterplot.axis_values(part, quantity) for part in by_outcome],
            "axis": scatterplot.scatter_axis(quantity),
        }
        for quantity in quantities
    }
    colours = [*figure.layout.meta["colours"], "mark"]
    return Picture(figure.update_layout(meta={"colours": colours, "axes": axes}))


def short_name(number: Any, model: pd.Series) -> str:
    """A line on a model, such as "model 3: train 100%, holdout 99.8%"."""
    return f"model {number}: {accuracies(model)}"


def accuracies(model: pd.Series) -> str:
    """A model's accuracies on both splits, as text."""
    return ", ".join(
        f"{split} {percentage(model[f'{split}_accuracy'])}" for split in ("train", "holdout")
    )


def model_options(chosen: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """The entries of a drop-down list of the chosen models, grouped by which splits they solve."""
    options: dict[str, list[dict[str, Any]]] = {meaning: [] for meaning in OUTCOMES.values()}
    for i, (number, model) in enumerate(chosen.iterrows()):
        option = {"value": i, "name": number, "text": short_name(number, model), "wrong": False}
        options[OUTCOMES[model[OUTCOME]]].append(option)
    return options


def model_details(
    population: Population, chosen: pd.DataFrame, with_claims: bool
) -> list[dict[str, Any]]:
    """A list of what the page shows of each chosen model: facts, claims and commands."""
    cfg, task = population.config.model, population.config.task
    return [
        {
            "number": number,
            "facts": {
                "Outcome": OUTCOMES[model[OUTCOME]],
                "Accuracy": accuracies(model),
                "Hyperparameters": point_name(model),
                "Seeds": ", ".join(f"{name.removesuffix('_seed')} {model[name]}" for name in SEEDS),
            },
            "claims": claims_of(model.to_dict(), cfg, task).sentences(cfg) if with_claims else [],
            "report_command": report_command(population, int(str(number))),
            "export_command": export_command(population, int(str(number))),
            "command": train_command(
                population.run_config(int(str(number))), f"runs/model-{number}"
            ),
        }
        for number, model in chosen.iterrows()
    ]
