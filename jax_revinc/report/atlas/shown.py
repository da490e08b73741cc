"""The models that a page shows one by one: which, what holds of them, how their heads look."""

from __future__ import annotations

from typing import Any

import pandas as pd

from jax_revinc.analysis.increment import component_labels
from jax_revinc.population import Population
from jax_revinc.report import figures, markup
from jax_revinc.report.atlas.commands import train_command
from jax_revinc.report.atlas.outcomes import DIVERGES, OUTCOME, OUTCOMES, point_name
from jax_revinc.report.atlas.survey import claims_of
from jax_revinc.report.contents import percent
from jax_revinc.report.forming import mean_patterns
from jax_revinc.report.gallery import predicting
from jax_revinc.report.shell import Gallery
from revinc import HookedTransformerConfig
from revinc.config import SEEDS
from revinc.sweep import SWEPT
from revinc.tasks import reading_cells

MODEL = "model"
"""The chooser of the model that is shown."""

MOST_MODELS = 300
MOST_NUMBERS = 100_000
"""Attention probabilities of all shown models together, to keep the page small."""

OF_EACH_KIND = 3
"""Models that are shown of every kind, however rare, before the others are drawn."""


def chosen_models(models: pd.DataFrame, cfg: HookedTransformerConfig, n_fed: int) -> pd.DataFrame:
    """The models that are shown, by outcome: some of every kind, the others drawn at random, always alike.

    A kind is an outcome with, where claims were put, whether attention reverses and who increments. Models that
    diverged have no patterns, and are not shown.
    """
    sound = models[models[OUTCOME] != DIVERGES]
    claimed = ["attention_reverses", *(f"increments.{part}" for part in component_labels(cfg))]
    kind = [OUTCOME, *(name for name in claimed if name in sound)]
    shuffled = sound.sample(frac=1, random_state=0)
    rank = shuffled.groupby(kind).cumcount().clip(upper=OF_EACH_KIND)
    room = MOST_NUMBERS // (cfg.n_layers * cfg.n_heads * n_fed**2)
    chosen = shuffled.loc[rank.sort_values(kind="stable").index[: max(1, min(MOST_MODELS, room))]]
    order = chosen[OUTCOME].map(list(OUTCOMES).index)
    return chosen.sort_index().loc[order.sort_index().sort_values(kind="stable").index]


def pattern_pictures(population: Population, chosen: pd.DataFrame) -> Gallery:
    """Every head's mean pattern over the sequences, in each of the chosen models."""
    cfg, task = population.config.model, population.config.task
    patterns = mean_patterns(cfg, population.params(chosen.index.to_numpy()), task)
    return {
        f"pattern-{layer}-{head}": figures.pattern_picture(
            list(patterns[:, layer, head]),
            [task.position_labels[:-1]] * len(chosen),
            axis=MODEL,
            title=f"Layer {layer}, head {head}",
            predicting=predicting(task),
            reading=reading_cells(task),
        )
        for layer in range(cfg.n_layers)
        for head in range(cfg.n_heads)
    }


def short_name(number: Any, model: pd.Series) -> str:
    """A model in a line."""
    return f"model {number}: {accuracies(model)}"


def accuracies(model: pd.Series) -> str:
    """Both of a model's accuracies."""
    return ", ".join(
        f"{split} {percent(model[f'{split}_accuracy']).replace(' ', '')}"
        for split in ("train", "holdout")
    )


def model_chooser(chosen: pd.DataFrame) -> str:
    """What the shown model is chosen by beside the scatter: from a list, by its number, one by one."""
    groups = "".join(
        f"<optgroup label='{markup.text(meaning)}'>"
        + "".join(
            f"<option value='{i}' data-name='{number}'>{markup.text(short_name(number, model))}</option>"
            for i, (number, model) in enumerate(chosen.iterrows())
            if model[OUTCOME] == name
        )
        + "</optgroup>"
        for name, meaning in OUTCOMES.items()
        if (chosen[OUTCOME] == name).any()
    )
    return (
        f"<form class='chooser' data-axis='{MODEL}' data-absent='not among the models shown here' "
        f"autocomplete='off'><label>Model <select>{groups}</select></label>"
        "<label>or its number <input type='text' inputmode='numeric' size='6'></label>"
        "<button type='button' data-move='-1'>← previous</button>"
        "<button type='button' data-move='1'>next →</button>"
        "<output aria-live='polite'></output></form>"
    )


def details(population: Population, chosen: pd.DataFrame, with_claims: bool) -> str:
    """What is said of every chosen model: what it is, what holds of it, how to train it alone."""
    cfg, task = population.config.model, population.config.task
    parts = []
    for i, (number, model) in enumerate(chosen.iterrows()):
        seeds = ", ".join(f"{name.removesuffix('_seed')} {model[name]}" for name in SEEDS)
        told = {
            "Outcome": OUTCOMES[model[OUTCOME]],
            "Accuracy": accuracies(model),
            "Recipe": point_name(*(model[name] for name in SWEPT)),
            "Seeds": seeds,
        }
        sentences = claims_of(model.to_dict(), cfg, task).sentences(cfg) if with_claims else []
        command = train_command(population.run_config(int(str(number))), f"runs/model-{number}")
        hidden = " hidden" if i else ""
        parts.append(
            f"<article data-{MODEL}='{i}'{hidden}><h3>Model {number}</h3>"
            f"<div class='facts'>{markup.facts(told)}</div>{markup.bullets(sentences) if sentences else ''}"
            f"<p class='legend'>To train it alone:</p>{command_box(command)}</article>"
        )
    return "".join(parts)


def command_box(command: str) -> str:
    """A command to copy."""
    return f"<pre class='command'><code>{markup.text(command)}</code></pre>"
