"""The atlas of a population: an HTML page and its tables, written into the population's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from jax_revinc.analysis.claims import why_none
from jax_revinc.analysis.snapshots import MOST_SEQUENCES
from jax_revinc.plots import claims as claim_plots
from jax_revinc.plots import hyperparameters, population_training, scatterplot
from jax_revinc.population import Population
from jax_revinc.population.store import ATLAS, CONFIG
from jax_revinc.report.atlas import example_models, sentences
from jax_revinc.report.atlas.training_commands import population_command
from jax_revinc.report.render_html import Gallery, Picture, make_gallery, render
from jax_revinc.survey.atlas_tables import (
    claims_table,
    curves_table,
    models_table,
    points_table,
    shares_table,
    write_tables,
)
from jax_revinc.survey.claims import survey_claims
from jax_revinc.survey.outcomes import DIVERGES, OUTCOME, Masks, field_words, point_name, scopes
from jax_revinc.survey.rate_intervals import Rate, mean_text, rate_of, unbroken
from jax_revinc.survey.seed_variance import seeds_table
from revinc.atomic_files import write_text
from revinc.config_fields import fields_without_effect
from revinc.config_summary import count, model_size, nearest_preset
from revinc.folders import make_own_folder
from revinc.json_records import read_record
from revinc.number_format import percent, percentage
from revinc.sweep import IDENTITY, SWEPT
from revinc.tasks import task_flag
from revinc.token_labels import which_sequences

Tables = dict[str, pd.DataFrame]
"""The atlas' tables by name."""

FOLDER = "atlas"
"""The folder of the tables, within the population's."""

ANSWERS = "answers.parquet"
"""The file in which answers to the claims are kept for the next atlas."""

SCOPE = "scope"
"""The chooser of the models that distributions and curves are about."""

MOST_LISTED = 12
"""Values of a setting that are listed one by one."""

TABLES = {
    "models": "a row per model: hyperparameters, seeds, outcome, metrics, best step, claims",
    "points": "a row per hyperparameter point: rates and means with intervals",
    "curves": "quantiles of loss and accuracy at every evaluation",
    "claims": "how often each claim holds, by component, for models that generalise and others",
    "shares": "quantiles of the share of the answers that each component makes",
    "seeds": "how much of the variance of holdout accuracy each seed explains",
}

CLAIM_NAMES = {
    "attention_reverses": "attention fetches every token",
    "tutorial": "attention fetches every token and an MLP makes the answers",
    "head_reverses": "reads",
    "increments": "makes the answers",
    "necessary": "needed",
    "sufficient": "enough on its own",
}


def write_atlas(population: Population, progress: Callable[[int], None] = lambda _: None) -> Path:
    """Write a population's page ``atlas.html``, and tables in ``atlas/``; return the page's path.

    Args:
        population: a population with at least one finished model.
        progress: called with the number of models whose claims were evaluated since the last call.

    Raises:
        UserError: if no model is finished, a shard is damaged, or ``atlas`` is a link or a file.
        OSError: if the folder is not writable; each file is then the old one or the whole new one.
    """
    folder = population.path / FOLDER
    finite = population.metrics["diverged_at"].isna()
    make_own_folder(folder)
    answers = None
    if not why_none(population.config.task):
        numbers = finite.index[finite].to_numpy()
        answers = survey_claims(population, numbers, folder / ANSWERS, progress)
    tables = atlas_tables(population, answers)
    write_tables(tables, folder)
    for name in TABLES.keys() - tables.keys():  # an earlier atlas may have had these
        for kind in ("parquet", "csv"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
    page, path = atlas_page(population, tables), population.path / ATLAS
    write_text(path, page)
    return path


def atlas_tables(population: Population, answers: pd.DataFrame | None) -> Tables:
    """The tables of an atlas (a population's page), by names such as "models" and "curves".

    Args:
        population: finished models.
        answers: from `survey_claims`; None if the task allows no claims. Without it there are no
            tables of claims and shares. There is a table of seeds only where they are crossed.
    """
    models, cfg = models_table(population, answers), population.config.model
    tables = {
        "models": models,
        "points": points_table(models, population.config.task.solved),
        "curves": curves_table(population, models),
    }
    if answers is not None:
        tables |= {"claims": claims_table(models, cfg), "shares": shares_table(models, cfg)}
    seeds = seeds_table(models)
    return tables | ({"seeds": seeds} if len(seeds) else {})


def atlas_page(population: Population, tables: Tables) -> str:
    """The HTML text of a population's atlas page, from the population and a dict of its tables."""
    cfg, models = population.config, tables["models"]
    chosen = example_models.chosen_models(models, cfg.model, len(cfg.task.position_labels) - 1)
    groups = scopes(models)
    galleries = {
        "distributions": distribution_pictures(models, groups) | curve_pictures(tables["curves"]),
        "success": success_pictures(tables["points"]),
        "claims": claim_pictures(tables),
        "shares": share_pictures(tables),
        "scatter": {"scatter": example_models.scatter_picture(chosen)} if len(chosen) else {},
        "patterns": example_models.head_patterns(population, chosen) if len(chosen) else {},
    }
    pictures = {name: p for section in galleries.values() for name, p in section.items()}
    return render(
        "atlas.html",
        pictures,
        {
            **galleries,
            "name": population.path.resolve().name,
            "title": f"{count(len(models), 'model')}: {cfg.task.title.lower()}",
            "task": cfg.task,
            "training": training_sentence(population),
            "n_models": f"{len(models):,}",
            "n_planned": f"{len(population.planned):,}",
            "scores": main_rates(models, cfg.task.solved),
            "sentences": [unbroken(sentence) for sentence in headline(tables, cfg.task.solved)],
            "steps": f"{cfg.steps:,}",
            "scope_names": list(groups),
            "point_rows": point_rows(tables["points"]),
            "seed_rows": seed_rows(tables["seeds"]) if "seeds" in tables else {},
            "why_no_claims": why_none(cfg.task),
            "rate_table": rate_table(tables["claims"]) if "claims" in tables else {},
            "shown": shown_models(models, chosen),
            "quantities": scatterplot.scatter_quantities(chosen),
            "model_options": example_models.model_options(chosen),
            "details": example_models.model_details(
                population, chosen, with_claims="claims" in tables
            ),
            "pattern_sequences": pattern_sequences(population),
            "files": {f"{FOLDER}/{table}.parquet, .csv": TABLES[table] for table in tables},
            "train_command": population_command(population),
            "atlas_command": f"jax-revinc atlas {population.path}{task_flag(cfg.task)}",
            "nearest": nearest_preset(shared_settings(population)),
            "settings": settings(population),
        },
    )


def distribution_pictures(models: pd.DataFrame, groups: Masks) -> Gallery:
    """Histograms of accuracy on each split, for each group of models that a reader can choose."""
    pictures = {}
    for split in population_training.SPLIT_NAMES:
        accuracy = models[f"{split}_accuracy"]
        versions = [
            population_training.histogram_version(accuracy[mask]) for mask in groups.values()
        ]
        figure = population_training.accuracy_histogram(models, split)
        pictures[f"histogram-{split}"] = Picture(figure, SCOPE, versions)
    return pictures


def curve_pictures(curves: pd.DataFrame) -> Gallery:
    """Learning curves of loss and accuracy, for each group of models that a reader can choose."""
    pictures = {}
    for metric, of_metric in curves.groupby("metric", sort=False):
        split, quantity = str(metric).split("_")
        by_scope = [rows for _, rows in of_metric.groupby("scope", sort=False)]
        versions = [population_training.curves_version(rows) for rows in by_scope]
        figure = population_training.curves_figure(by_scope[0])
        pictures[f"curves-{quantity}-{split}"] = Picture(figure, SCOPE, versions)
    return pictures


def success_pictures(points: pd.DataFrame) -> Gallery:
    """Heatmaps of the share of models that solve each split; none if no hyperparameter varies."""
    if len(points) == 1:
        return {}
    by_split = {
        split: hyperparameters.success_figures(points, split)
        for split in population_training.SPLIT_NAMES
    }
    places = next(iter(by_split.values()))
    return make_gallery(
        {f"rates-{place}-{split}": by_split[split][place] for place in places for split in by_split}
    )


def claim_pictures(tables: Tables) -> Gallery:
    """Figures of how often the tutorial's claims hold, by component; none without their table."""
    if "claims" not in tables:
        return {}
    return make_gallery(
        {
            f"claim-{claim}": claim_plots.claim_rates(tables["claims"], claim)
            for claim in claim_plots.CLAIM_TITLES
        }
    )


def share_pictures(tables: Tables) -> Gallery:
    """Box plots of each component's share of the answers' logits; none without their table."""
    if "shares" not in tables:
        return {}
    return make_gallery({"shares": claim_plots.increment_shares(tables["shares"])})


def headline(tables: Tables, solved: float) -> list[str]:
    """The sentences at the top of an atlas page: how well the models learn, and what they learn."""
    found = sentences.accuracy_sentences(tables["models"], tables["points"], solved)
    if "claims" in tables:
        found += sentences.claim_sentences(tables["models"], tables["claims"])
    return found


def training_sentence(population: Population) -> str:
    """A sentence on how large a population's models are, how they were trained, and what varies."""
    cfg = population.config
    points = population.planned[list(SWEPT)].drop_duplicates()
    # A field may have an effect only in some models, such as the end of a learning rate.
    without_effect = fields_without_effect(type(cfg), cfg)
    fields = [name for name in SWEPT if name not in without_effect or points[name].nunique() > 1]
    points = points[fields]
    *first, last = map(field_words, fields)
    where = (
        f"at {point_name(points.iloc[0])}"
        if len(points) == 1
        else f"at {len(points):,} points of {', '.join(first)} and {last}"
    )
    return (
        f"Every model has {model_size(cfg.model)}, and was trained for {cfg.steps:,} steps of "
        f"{cfg.batch_size} examples {where}."
    )


def main_rates(models: pd.DataFrame, solved: float) -> dict[str, tuple[str, str]]:
    """The main results of a population, as a dict from a name to (number, confidence interval)."""
    diverged = models[OUTCOME] == DIVERGES
    rates = {
        f"{percent(solved)} of the {name}": rate_of(models[f"{split}_accuracy"] >= solved)
        for split, name in population_training.SPLIT_NAMES.items()
    }
    if "attention_reverses" in models:
        rates["Attention fetches every token"] = rate_of(models[~diverged]["attention_reverses"])
    if diverged.any():
        rates["Diverged"] = rate_of(diverged)
    texts = {name: rate.text for name, rate in rates.items()}
    texts["Mean holdout accuracy"] = mean_text(models["holdout_accuracy"])
    parts = {name: text.partition(" ") for name, text in texts.items()}
    return {name: (number, interval) for name, (number, _, interval) in parts.items()}


def point_rows(points: pd.DataFrame) -> dict[str, list[str]]:
    """Rows of a table: for each combination of hyperparameters, how many models solve a split."""
    return {
        point_name(point): [
            f"{point['models']:,}",
            Rate(point["train_perfect"], point["models"]).text,
            Rate(point["holdout_perfect"], point["models"]).text,
            percentage(point["holdout_accuracy"], 1),
            f"{point['diverged']:,}",
        ]
        for point in points.to_dict("records")
    }


def seed_rows(seeds: pd.DataFrame) -> dict[str, list[str]]:
    """Rows of a table: how much variance of accuracy each seed (init, data, split) explains."""
    return {
        f"{row['seed']} ({row['split']})": [
            f"{row['values']:,}",
            f"{row['explained']:.0%}",
            f"{row['chance']:.0%}",
            "more than chance" if row["explained"] > row["chance"] else "no more than chance",
        ]
        for row in seeds.to_dict("records")
    }


def rate_table(rates: pd.DataFrame) -> dict[str, Any]:
    """The columns and rows of the atlas' table of how often the tutorial's claims hold."""
    rows: dict[str, list[str]] = {}
    for row in rates.to_dict("records"):
        cells = rows.setdefault(f"{CLAIM_NAMES[row['claim']]}: {row['part']}", [])
        cells.append(Rate(row["hits"], row["n"]).text)
        if len(cells) == rates["group"].nunique():
            cells.append(row["compared"])
    return {"columns": [*rates["group"].unique(), "generalising ones"], "rows": rows}


def shown_models(models: pd.DataFrame, chosen: pd.DataFrame) -> str:
    """A sentence on how many models the page shows one by one, and how they were chosen."""
    if not len(chosen):
        return "All models diverged: there are no patterns to show."
    how = "Click a point, or choose a model from the list, to see its patterns and its claims."
    n_finite = int((models[OUTCOME] != DIVERGES).sum())
    if len(chosen) == n_finite:
        left_out = " that did not diverge" if n_finite < len(models) else ""
        several = f"All {len(chosen):,} models{left_out}. {how}"
        return several if len(chosen) > 1 else "The only model."
    kinds = "outcome"
    if "attention_reverses" in models:
        kinds += ", whether attention fetches every token, which components make the answers"
    return (
        f"{len(chosen):,} of {len(models):,} models: up to {example_models.OF_EACH_KIND} of every kind "
        f"({kinds}) as far as there is room, the others drawn at random. {how}"
    )


def pattern_sequences(population: Population) -> str:
    """A phrase that says over which sequences the page's attention patterns are averaged."""
    task = population.config.task
    n = len(task.sequences())
    if n > MOST_SEQUENCES:
        return f"the first {MOST_SEQUENCES:,} of {n:,} sequences"
    return f"{which_sequences(task)} sequences"


def shared_settings(population: Population) -> dict[str, dict[str, Any]]:
    """A population's settings by section of its config; of what varies, the values.

    The number 2 of a field with one value is 2, not "2", to be compared with that of a preset.
    """
    sections = population.config.to_dict()
    sections["train"] |= {name: values_of(population.planned[name]) for name in IDENTITY}
    return sections


def settings(population: Population) -> dict[str, dict[str, Any]]:
    """A population's settings by section of its config, with its engine and package versions."""
    record = read_record(population.path / CONFIG, "population")
    origin = {"engine": population.engine, "versions": record["versions"]}
    commit = record.get("commit")
    return (
        shared_settings(population)
        | origin
        | ({"source": {"commit": short_commit(commit)}} if commit else {})
    )


def short_commit(commit: str) -> str:
    """The hash of a commit in 12 digits, with what follows it, such as ``-dirty``."""
    digits, dash, rest = commit.partition("-")
    return digits[:12] + dash + rest


def values_of(values: pd.Series) -> Any:
    """A config field's values in a population: the only one itself, or a text of several."""
    return values.iloc[0] if values.nunique() == 1 else value_range(values)


def value_range(values: pd.Series) -> str:
    """A config field's values in a population, as text; for many values, their count and range."""
    found = sorted(values.unique())
    if len(found) > MOST_LISTED:
        return f"{len(found):,} values, {found[0]} to {found[-1]}"
    return ", ".join(map(str, found))
