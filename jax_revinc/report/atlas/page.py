"""The atlas: a population's page and its tables, in its own folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from string import Template

import pandas as pd

from jax_revinc.analysis.claims import why_none
from jax_revinc.population import Population
from jax_revinc.population.store import ATLAS, CONFIG
from jax_revinc.report import markup, shell, words
from jax_revinc.report.atlas import figures, sentences, shown
from jax_revinc.report.atlas.commands import population_command
from jax_revinc.report.atlas.outcomes import DIVERGES, OUTCOME, point_name, scopes
from jax_revinc.report.atlas.rates import Rate, mean_text, rate_of, unbroken
from jax_revinc.report.atlas.scatter import axes_chooser, scatter_picture
from jax_revinc.report.atlas.seeds import seeds_table
from jax_revinc.report.atlas.survey import survey
from jax_revinc.report.atlas.tables import (
    claims_table,
    curves_table,
    models_table,
    points_table,
    shares_table,
    write_tables,
)
from jax_revinc.report.forming import MOST_SEQUENCES
from jax_revinc.report.shell import Gallery, Picture
from revinc.atomic import write_atomically
from revinc.labels import percent, which_sequences
from revinc.records import read_record
from revinc.sweep import IDENTITY

FOLDER = "atlas"
"""Where the tables are, within the population's folder."""

ANSWERS = "answers.parquet"
"""The claims as they were answered, kept for the next time."""

MOST_LISTED = 12
"""Values of a setting that are listed one by one."""

TABLES = {
    "models": "a row per model: recipe, seeds, outcome, metrics, claims",
    "points": "a row per hyperparameter point: rates and means with intervals",
    "curves": "quantiles of loss and accuracy at every evaluation",
    "claims": "how often each claim holds, by component, for models that generalise and others",
    "shares": "quantiles of the share of the increment that each component makes",
    "seeds": "how much of the variance of holdout accuracy each seed explains",
}


def write_atlas(population: Population, moved: Callable[[int], None] = lambda _: None) -> Path:
    """Write ``atlas.html`` and the tables of ``atlas/`` into a population's folder; returns the page's path.

    Args:
        population: of which at least one model is finished.
        moved: called with how many more of its models have been asked for their claims.

    Raises:
        UserError: if no model is finished, or a chunk is damaged.
        OSError: if the folder is not writable; what was there is then as it was, or whole and new.
    """
    folder = population.path / FOLDER
    sound = population.metrics["diverged_at"].isna()
    folder.mkdir(exist_ok=True)
    answers = None
    if not why_none(population.config.task):
        numbers = sound.index[sound].to_numpy()
        answers = survey(population, numbers, folder / ANSWERS, moved)
    tables = atlas_tables(population, answers)
    write_tables(tables, folder)
    for name in TABLES.keys() - tables.keys():  # of an earlier atlas, of which that was true
        for kind in ("parquet", "csv"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
    page, path = atlas_page(population, tables), population.path / ATLAS
    write_atomically(path, lambda file: file.write_text(page, encoding="utf-8"))
    return path


def atlas_tables(population: Population, answers: pd.DataFrame | None) -> dict[str, pd.DataFrame]:
    """The tables by name; those of claims only where there are claims, that of seeds where they are crossed."""
    models, cfg = models_table(population, answers), population.config.model
    seeds = seeds_table(models)
    return {
        "models": models,
        "points": points_table(models, population.config.task.solved),
        "curves": curves_table(population, models),
        **(
            {}
            if answers is None
            else {"claims": claims_table(models, cfg), "shares": shares_table(models, cfg)}
        ),
        **({"seeds": seeds} if len(seeds) else {}),
    }


def atlas_page(population: Population, tables: dict[str, pd.DataFrame]) -> str:
    """The page as HTML, from a population and its `atlas_tables`."""
    cfg, models = population.config, tables["models"]
    of_scopes = scopes(models)
    distributions = figures.histogram_pictures(models, of_scopes)
    distributions |= figures.curve_pictures(tables["curves"])
    chosen = shown.chosen_models(models, cfg.model, len(cfg.task.position_labels) - 1)
    scatter = scatter_picture(chosen) if len(chosen) else {}
    patterns = shown.pattern_pictures(population, chosen) if len(chosen) else {}
    several_points = len(tables["points"]) > 1
    rates = figures.rate_pictures(tables["points"]) if several_points else {}
    claims: Gallery = {}
    if "claims" in tables:
        claims = figures.claim_pictures(tables["claims"]) | figures.shares_picture(tables["shares"])
    n_sequences = len(cfg.task.sequences())
    title = f"{words.count(len(models), 'model')}: {cfg.task.title.lower()}"
    body = Template(shell.asset("jax_revinc.report", "atlas.html")).substitute(
        name=markup.text(population.path.resolve().name),
        title=markup.text(title),
        task_sentence=markup.text(cfg.task.description),
        recipe=markup.text(recipe_sentence(population)),
        unfinished=unfinished(population),
        scores=tiles(models, cfg.task.solved),
        sentences=markup.bullets(map(unbroken, headline(tables, cfg.task.solved))),
        noscript=markup.NO_SCRIPT,
        steps=f"{cfg.steps:,}",
        scope_chooser=scope_chooser(list(of_scopes)),
        distributions=places(distributions, 330),
        hyperparameters=hyperparameters(tables["points"], rates),
        seeds=seeds_section(tables.get("seeds")),
        claims=claims_section(population, tables, claims),
        shown=markup.text(which_are_shown(models, chosen)),
        axes_chooser=axes_chooser(chosen) if len(chosen) else "",
        model_chooser=shown.model_chooser(chosen) if len(chosen) else "",
        scatter=place("scatter", scatter["scatter"], 480) if len(chosen) else "",
        details=shown.details(population, chosen, with_claims="claims" in tables),
        pattern_sequences=f"the first {MOST_SEQUENCES:,} of {n_sequences:,} sequences"
        if n_sequences > MOST_SEQUENCES
        else f"{which_sequences(cfg.task)} sequences",
        patterns=places(patterns),
        table_list=table_list(tables),
        commands=commands(population),
        settings=settings(population),
    )
    return shell.make_page(
        f"Atlas · {population.path.resolve().name}",
        body,
        distributions | rates | claims | scatter | patterns,
        shell.asset("jax_revinc.report", "atlas.css"),
        shell.asset("jax_revinc.report", "atlas.js"),
    )


def headline(tables: dict[str, pd.DataFrame], solved: float) -> list[str]:
    """What the population says, in sentences."""
    said = sentences.reached(tables["models"], tables["points"], solved)
    return said + (
        sentences.learned(tables["models"], tables["claims"]) if "claims" in tables else []
    )


def recipe_sentence(population: Population) -> str:
    """What the models have in common, and in what they differ."""
    cfg, planned = population.config, population.planned
    points = planned[["lr", "weight_decay", "split"]].drop_duplicates()
    where = (
        f"at {point_name(*points.iloc[0])}"
        if len(points) == 1
        else f"at {len(points):,} points of learning rate, weight decay and split"
    )
    return (
        f"Every model has {words.model_size(cfg.model)}, and was trained for {cfg.steps:,} steps of "
        f"{cfg.batch_size} examples {where}."
    )


def unfinished(population: Population) -> str:
    """A warning if models are still missing."""
    n, planned = len(population), len(population.planned)
    if n == planned:
        return ""
    return (
        f"<p class='warning'>This population is not finished: the page is about {n:,} of {planned:,} models. "
        "Write it again when the others are trained.</p>"
    )


def tiles(models: pd.DataFrame, solved: float) -> str:
    """The most important numbers, each with its interval."""
    shown_rates = {
        f"{percent(solved)} of the {name}": rate_of(models[f"{split}_accuracy"] >= solved)
        for split, name in figures.SPLIT_NAMES.items()
    }
    if "attention_reverses" in models:
        sound = models[models[OUTCOME] != DIVERGES]
        shown_rates["Attention reverses"] = rate_of(sound["attention_reverses"])
    if (models[OUTCOME] == DIVERGES).any():
        shown_rates["Diverged"] = rate_of(models[OUTCOME] == DIVERGES)
    texts = {name: rate.text for name, rate in shown_rates.items()}
    texts["Mean holdout accuracy"] = mean_text(models["holdout_accuracy"])
    return (
        f"<dl>{''.join(tile(name, *text.partition(' ')[::2]) for name, text in texts.items())}</dl>"
    )


def tile(name: str, number: str, interval: str) -> str:
    """A number in large, its interval in small."""
    small = f"<small>{markup.text(interval)}</small>" if interval else ""
    return f"<div><dt>{markup.text(name)}</dt><dd>{markup.text(number)}{small}</dd></div>"


def place(name: str, picture: Picture, height: int | None = None) -> str:
    """Where a picture is drawn."""
    return markup.place(name, picture.figure.layout.title.text, height=height)


def places(drawn: Gallery, height: int | None = None) -> str:
    """Where pictures are drawn, side by side."""
    return markup.grid(place(name, picture, height) for name, picture in drawn.items())


def scope_chooser(names: list[str]) -> str:
    """A list of the models that distributions and curves are of; nothing if there is no choice."""
    if len(names) == 1:
        return ""
    options = "".join(f"<option value='{i}'>{markup.text(n)}</option>" for i, n in enumerate(names))
    return (
        f"<form class='chooser' data-axis='{figures.SCOPE}' autocomplete='off'>"
        f"<label>Models <select>{options}</select></label></form>"
    )


def hyperparameters(points: pd.DataFrame, rates: Gallery) -> str:
    """Success by hyperparameters, as heatmaps and as a table; nothing if there is one point only."""
    if len(points) == 1:
        return ""
    rows = {
        point_name(point["lr"], point["weight_decay"], point["split"]): [
            f"{point['models']:,}",
            Rate(point["train_perfect"], point["models"]).text,
            Rate(point["holdout_perfect"], point["models"]).text,
            f"{point['holdout_accuracy']:.1%}",
            f"{point['diverged']:,}",
        ]
        for point in points.to_dict("records")
    }
    columns = ["models", "solve training", "solve holdout", "mean holdout", "diverged"]
    table = markup.table("Every point", columns, rows)
    height = 150 + 58 * points["weight_decay"].nunique()
    return markup.section(
        "Which hyperparameters succeed",
        markup.paragraph(
            "The share of models that solve a split, with its 95% interval where there is room. Blank points were not "
            "trained."
        ),
        places(rates, height),
        f"<details><summary>As a table</summary>{table}</details>",
    )


def seeds_section(seeds: pd.DataFrame | None) -> str:
    """What each seed decides; nothing if seeds are not crossed."""
    if seeds is None:
        return ""
    rows = {
        f"{row['seed']} ({row['split']})": [
            f"{row['values']:,}",
            f"{row['explained']:.0%}",
            f"{row['chance']:.0%}",
            "more than chance" if row["explained"] > row["chance"] else "no more than chance",
        ]
        for row in seeds.to_dict("records")
    }
    return markup.section(
        "Which seed decides",
        markup.paragraph(
            "The share of the variance of holdout accuracy, within hyperparameter points, that lies between the values of "
            "one seed. A seed that decides nothing explains something too: 95% of shuffles stay below the number given. "
            "What no seed explains alone is their interplay: training is chaotic."
        ),
        markup.table("Seeds", ["values", "explained", "by chance", ""], rows),
    )


def claims_section(population: Population, tables: dict[str, pd.DataFrame], drawn: Gallery) -> str:
    """How often the tutorial's claims hold, for models that generalise and for others; or why none were put."""
    title = "What they learned"
    if "claims" not in tables:
        why = why_none(population.config.task)
        return markup.section(
            title, markup.paragraph(f"No claims were put to these models: {why}.", "note")
        )
    rates = tables["claims"]
    mixed = MIXED if len(tables["points"]) > 1 else ""
    dots = {name: picture for name, picture in drawn.items() if name != "shares"}
    return markup.section(
        title,
        markup.paragraph(CLAIMS + mixed),
        places(dots, 120 + 38 * max(rates.groupby("claim")["part"].nunique())),
        markup.paragraph(words.CLAIMS),
        markup.grid(
            [place("shares", drawn["shares"], 120 + 46 * tables["shares"]["part"].nunique())]
        ),
        f"<details><summary>As a table</summary>{rates_table(rates)}</details>",
    )


def rates_table(rates: pd.DataFrame) -> str:
    """Every rate of the claims with its interval."""
    rows: dict[str, list[str]] = {}
    for row in rates.to_dict("records"):
        cells = rows.setdefault(f"{CLAIM_NAMES[row['claim']]}: {row['part']}", [])
        cells.append(Rate(row["hits"], row["n"]).text)
        if len(cells) == rates["group"].nunique():
            cells.append(row["compared"])
    columns = [*rates["group"].unique(), "generalising ones"]
    return markup.table("How often claims hold", columns, rows)


CLAIMS = (
    "The tutorial's claims, put to every model that did not diverge. Dots are rates and lines their 95% intervals: where two "
    "lines are apart, models that generalise differ from the others; where they overlap, no difference is shown. Two components may "
    "both make most of the increment, the others then undoing some of it. "
)
MIXED = (
    "Both groups mix models of all hyperparameters, so a difference may be one of hyperparameters."
)
CLAIM_NAMES = {
    "attention_reverses": "attention reverses",
    "tutorial": "attention reverses and an MLP increments",
    "head_reverses": "reads",
    "increments": "increments",
    "necessary": "necessary",
    "sufficient": "sufficient",
}


def which_are_shown(models: pd.DataFrame, chosen: pd.DataFrame) -> str:
    """How many models can be looked at, and how they were chosen."""
    if not len(chosen):
        return "All models diverged: there are no patterns to show."
    how = "Click a point, or choose a model from the list, to see its attention patterns and what holds of it."
    n_sound = int((models[OUTCOME] != DIVERGES).sum())
    if len(chosen) == n_sound:
        left_out = " that did not diverge" if n_sound < len(models) else ""
        return (
            f"All {len(chosen):,} models{left_out}. {how}" if len(chosen) > 1 else "The only model."
        )
    kinds = (
        "outcome, whether attention reverses, who increments"
        if "attention_reverses" in models
        else "outcome"
    )
    return (
        f"{len(chosen):,} of {len(models):,} models: {shown.OF_EACH_KIND} of every kind ({kinds}) as far as there are "
        f"and there is room, the others drawn at random. {how}"
    )


def table_list(tables: dict[str, pd.DataFrame]) -> str:
    """Where the tables are, and what is in them."""
    rows = {f"{FOLDER}/{name}.parquet, .csv": TABLES[name] for name in tables}
    return f"<div class='files'>{markup.facts(rows)}</div>"


def commands(population: Population) -> str:
    """How to train the population again, and write its atlas."""
    planned = population_command(population)
    train = (
        shown.command_box(planned)
        if planned
        else markup.paragraph(
            "The models were not planned at once, so no single command names them; models.parquet in the population's "
            "folder does.",
            "note",
        )
    )
    atlas = shown.command_box(f"jax-revinc atlas {population.path}")
    return f"<h3>Commands</h3>{train}{atlas}"


def settings(population: Population) -> str:
    """Everything that defines the population, as tables."""
    record = read_record(population.path / CONFIG, "population")
    sections = population.config.to_dict()
    sections["train"] |= {name: several(population.planned[name]) for name in IDENTITY}
    made = {"engine": population.engine, "versions": record["versions"]}
    commit = record.get("commit")
    source = {"source": {"commit": commit}} if commit else {}
    return markup.settings_tables({**sections, **made, **source})


def several(values: pd.Series) -> str:
    """The values that a field has in a population."""
    found = sorted(values.unique())
    if len(found) > MOST_LISTED:
        return f"{len(found):,} values, {found[0]} to {found[-1]}"
    return ", ".join(map(str, found))
