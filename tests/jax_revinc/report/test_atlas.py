"""The atlas: its numbers are those of the population, its answers are kept and kept up to date, its page works."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import types
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pages import look_at, look_at_all
from rich.spinner import SPINNERS

from jax_revinc import PRESETS, ReverseIncrement, TrainConfig, UserError
from jax_revinc.__main__ import main
from jax_revinc.analysis.claims import claims
from jax_revinc.analysis.increment import component_labels
from jax_revinc.commands import population as population_command
from jax_revinc.commands import train as train_command
from jax_revinc.population import load, train_population
from jax_revinc.report.atlas import training_commands
from jax_revinc.report.atlas.example_models import chosen_models
from jax_revinc.report.atlas.page import ANSWERS, FOLDER, write_atlas
from jax_revinc.report.atlas.sentences import accuracy_sentences
from jax_revinc.survey import claims as survey
from jax_revinc.survey.outcomes import DIVERGES, GENERALISES, OUTCOME, TRAIN_ONLY, scopes
from jax_revinc.survey.rate_intervals import Rate, compare_rates, mean_interval
from jax_revinc.survey.seed_variance import seed_factors, seeds_table
from revinc.model_config import HookedTransformerConfig
from revinc.sweep import IDENTITY, sweep
from revinc.tasks import TASKS, Brackets, Copy

TUTORIAL = PRESETS["tutorial"]
HOPELESS = 1e30
RECIPE = dataclasses.replace(
    TUTORIAL,
    task=ReverseIncrement(length=2),
    model=TUTORIAL.model.replace(n_ctx=5),
    train_fraction=0.875,
    batch_size=4,
    steps=300,
)
"""Sixteen sequences, of which two are held out: some models generalise within a second."""

AXES = {"lr": [3e-2, HOPELESS], "weight_decay": [0.0, 1e-2], "split": ["prefix", "random"]}
MODELS = sweep(RECIPE, AXES, seeds=range(6))
WIDTH = 24
HEADS, COMPONENTS = ("L0H0", "L1H0"), ("embed", "L0H0", "L1H0", "0_mlp_out", "1_mlp_out")


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    """Two chunks of models, of which some generalise and every second diverges, with an atlas. Copy its folder
    before you change it."""
    out = tmp_path_factory.mktemp("atlas") / "<b>mixed"
    population = train_population(RECIPE, MODELS, out, width=WIDTH)
    write_atlas(population)
    return population


@pytest.fixture
def copy(population, tmp_path):
    """A copy of the store, to damage."""
    return load(shutil.copytree(population.path, tmp_path / "copy"))


@pytest.fixture(scope="module")
def tables(population):
    """The tables as they are on disk, by name."""
    files = (population.path / FOLDER).glob("*.parquet")
    return {file.stem: pd.read_parquet(file) for file in files if file.name != ANSWERS}


@pytest.fixture(scope="module")
def html(population):
    return (population.path / "atlas.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pictures(html):
    return embedded(html)


def embedded(html):
    """The page's figures, by name."""
    data = re.search(r'<script type="application/json" id="pictures">(.*?)</script>', html, re.S)
    return json.loads(data[1])["pictures"]


def text_of(html):
    """What a reader reads, with plain spaces."""
    body = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body).replace("\u00a0", " "))


def wilson(hits, n):
    """Wilson's interval, by its formula."""
    z, p = 1.959964, hits / n
    middle, reach = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (middle - reach) / (1 + z**2 / n), (middle + reach) / (1 + z**2 / n)


# Tables


def test_every_table_is_there_twice_and_the_same(population, tables):
    assert set(tables) == {"models", "points", "curves", "claims", "shares"}
    for name, table in tables.items():
        text = pd.read_csv(population.path / FOLDER / f"{name}.csv")
        plain = table.reset_index() if table.index.name else table
        assert list(text) == list(plain)
        numbers = plain.select_dtypes("float").columns
        np.testing.assert_allclose(text[numbers], plain[numbers], rtol=1e-6)
    assert not list(population.path.rglob("*.partial"))


def test_a_link_in_the_place_of_the_folder_is_refused(population, tmp_path):
    copy, elsewhere = tmp_path / "copy", tmp_path / "elsewhere"
    shutil.copytree(population.path, copy, ignore=shutil.ignore_patterns(FOLDER))
    elsewhere.mkdir()
    (copy / FOLDER).symlink_to(elsewhere)
    with pytest.raises(UserError, match="atlas is a link"):
        write_atlas(load(copy))
    assert not list(elsewhere.iterdir())


def test_the_models_are_those_of_the_population(population, tables):
    metrics, models = population.metrics, tables["models"]
    pd.testing.assert_frame_equal(models[list(metrics)], metrics)
    pd.testing.assert_frame_equal(models[list(population.best)], population.best)
    counted = models[OUTCOME].value_counts()
    assert counted[DIVERGES] == metrics["diverged_at"].notna().sum() == len(MODELS) // 2
    assert counted[GENERALISES] == (metrics["holdout_accuracy"] == 1).sum() > 3
    asked = models["accuracy"].notna()
    assert (asked == (models[OUTCOME] != DIVERGES)).all()


def test_answers_are_those_of_each_model_alone(population, tables):
    cfg, task = population.config.model, population.config.task
    models = tables["models"]
    sound = models.index[models[OUTCOME] != DIVERGES]
    for number in (sound[0], sound[-1]):
        alone = claims(population.model(number), task)
        kept = survey.claims_of(models.loc[number].to_dict(), cfg, task)
        for name, value in alone._asdict().items():
            found = getattr(kept, name)
            assert found.shape == value.shape
            np.testing.assert_allclose(
                found.astype(float), value, rtol=1e-4, atol=1e-5, err_msg=name
            )
        assert kept.sentences(cfg)[1:3] == alone.sentences(cfg)[1:3]


def test_points_count_and_have_wilsons_interval(population, tables):
    metrics = population.metrics
    assert len(tables["points"]) == 8
    for point in tables["points"].to_dict("records"):
        of_point = metrics[
            (metrics[list(AXES)] == pd.Series({k: point[k] for k in AXES})).all(axis=1)
        ]
        assert point["models"] == len(of_point) == 6
        for split in ("train", "holdout"):
            hits = sum(accuracy == 1 for accuracy in of_point[f"{split}_accuracy"])
            assert point[f"{split}_perfect"] == hits
            assert point[f"{split}_perfect_rate"] == hits / 6
            bounds = point[f"{split}_perfect_low"], point[f"{split}_perfect_high"]
            assert bounds == pytest.approx(wilson(hits, 6), abs=1e-6)
        assert point["diverged"] == (6 if point["lr"] == HOPELESS else 0)


def test_rates_of_claims_are_counted(tables):
    models, rates = tables["models"], tables["claims"].set_index(["claim", "part", "group"])
    sound = models[models[OUTCOME] != DIVERGES]
    groups = {
        "all": sound,
        "generalising": sound[sound["holdout_accuracy"] == 1],
        "not generalising": sound[sound["holdout_accuracy"] < 1],
    }
    for group, of_group in groups.items():
        n = len(of_group)
        by_mlp = of_group["increments.0_mlp_out"] | of_group["increments.1_mlp_out"]
        made = of_group[[f"increments.{part}" for part in COMPONENTS]].any(axis=1)
        expected = {
            ("attention_reverses", "the model"): of_group["attention_reverses"],
            ("tutorial", "the model"): of_group["attention_reverses"] & by_mlp,
            ("increments", "any MLP"): by_mlp,
            ("increments", "no component"): ~made,
            **{("head_reverses", head): of_group[f"head_reverses.{head}"] for head in HEADS},
            **{
                (claim, part): of_group[f"{claim}.{part}"]
                for claim in ("increments", "necessary", "sufficient")
                for part in COMPONENTS
            },
        }
        for key, holds in expected.items():
            row = rates.loc[(*key, group)]
            assert (row["hits"], row["n"]) == (sum(holds), n)
            assert (row["low"], row["high"]) == pytest.approx(wilson(sum(holds), n), abs=1e-6)
    assert len(rates) == 3 * (len(expected) + 1)  # beside these: any head


def test_shares_and_curves_are_quantiles(population, tables):
    models = tables["models"]
    generalises = models[models[OUTCOME] == GENERALISES]
    shares = tables["shares"].set_index(["part", "group"])
    heads = generalises[[f"increment_share.{head}" for head in HEADS]].sum(axis=1)
    expected = {"0_mlp_out": generalises["increment_share.0_mlp_out"], "heads": heads}
    for part, values in expected.items():
        found = shares.loc[(part, "generalising"), ["q05", "q25", "q50", "q75", "q95"]]
        quantiles = np.quantile(values.astype(float), [0.05, 0.25, 0.5, 0.75, 0.95])
        np.testing.assert_allclose(found.astype(float), quantiles, rtol=1e-5, atol=1e-6)
    curves = tables["curves"].set_index(["scope", "metric", "step"])
    losses = population.curves("train_loss")
    for i, step in enumerate(population.steps):
        row = curves.loc[("all models", "train_loss", step)]
        known = losses[np.isfinite(losses[:, i]), i]
        assert row["models"] == len(known)
        assert row["q75"] == pytest.approx(np.quantile(known, 0.75))


# Answers are kept


def ask_all(population):
    """The claims on all models that did not diverge, and how many models were asked anew."""
    asked = []
    real = survey.ask_block

    def counting(cfg, task, width, params):
        asked.append(len(next(iter(params.values()))))
        return real(cfg, task, width, params)

    numbers = np.flatnonzero(population.metrics["diverged_at"].isna())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey, "ask_block", counting)
        found = survey.survey_claims(population, numbers, population.path / FOLDER / ANSWERS)
    return found, sum(asked)


@pytest.fixture(scope="module")
def answers(tables):
    """Those that were given first."""
    models = tables["models"]
    return models[models["accuracy"].notna()]


def assert_same(found, answers):
    for name in found:
        assert found[name].tolist() == answers[name].tolist(), name


def test_only_new_models_are_asked(copy, answers):
    found, n_asked = ask_all(copy)
    assert n_asked == 0
    assert_same(found, answers)
    added = sweep(RECIPE, {**AXES, "lr": [3e-2]}, seeds=range(6, 7))
    more = train_population(RECIPE, added, copy.path, resume=True)
    found, n_asked = ask_all(more)
    assert n_asked == len(added) == 4
    assert_same(found.loc[answers.index], answers)
    assert found.index[-4:].tolist() == [len(MODELS) + i for i in range(4)]
    assert found["accuracy"].notna().all()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(file.read_bytes()[:-100]),
        lambda file: file.write_bytes(flipped(file)),
        lambda file: file.write_bytes(b"nonsense"),
        lambda file: pd.read_parquet(file).to_parquet(file),
        lambda file: pd.read_parquet(file).drop(columns="solved").to_parquet(file),
    ],
    ids=["gone", "cut off", "a bit flipped", "nonsense", "asked what is unknown", "a column less"],
)
def test_answers_that_can_not_be_trusted_are_asked_again(copy, answers, spoil):
    spoil(copy.path / FOLDER / ANSWERS)
    found, n_asked = ask_all(copy)
    assert n_asked == len(answers)
    assert_same(found, answers)
    assert ask_all(copy)[1] == 0


def flipped(file):
    """What a Parquet file holds, with one bit changed at the end of its largest column."""
    rows = pq.read_metadata(file).row_group(0)
    largest = max(map(rows.column, range(rows.num_columns)), key=lambda c: c.total_compressed_size)
    begin = largest.dictionary_page_offset or largest.data_page_offset
    changed = bytearray(file.read_bytes())
    changed[begin + largest.total_compressed_size - 4] ^= 1
    return bytes(changed)


def test_a_model_with_other_weights_is_asked_again(copy, monkeypatch):
    numbers = np.flatnonzero(copy.metrics["diverged_at"].isna())[:3]
    file = copy.path / FOLDER / ANSWERS
    before = survey.survey_claims(copy, numbers, file)
    real = copy.params

    def retrained(models):
        params = real(models)
        params["unembed.b_U"][np.asarray(models) == numbers[1]] += 1e-3
        return params

    monkeypatch.setattr(copy, "params", retrained)
    asked = []
    after = survey.survey_claims(copy, numbers, file, asked.append)
    assert asked == [2, 1]
    np.testing.assert_array_equal(before.loc[numbers[[0, 2]]], after.loc[numbers[[0, 2]]])


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("FORMAT_VERSION", survey.FORMAT_VERSION + 1),
        ("source_digest", lambda *packages: f"of other {packages}"),
        ("metadata", types.SimpleNamespace(version=lambda package: f"another {package}")),
    ],
)
def test_other_questions_have_other_answers(copy, monkeypatch, name, other):
    monkeypatch.setattr(survey, name, other)
    assert ask_all(copy)[1] == len(MODELS) // 2


def test_what_was_answered_before_ctrl_c_is_kept(copy, monkeypatch):
    file = copy.path / FOLDER / ANSWERS
    file.unlink()
    done = []

    def interrupted(n):
        done.append(n)
        if sum(done) >= survey.BLOCK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atlas(copy, interrupted)
    assert ask_all(copy)[1] == len(MODELS) // 2 - survey.BLOCK


# The page


def test_the_headline_is_that_of_the_tables(tables, html):
    models = tables["models"]
    said = text_of(html)
    solved = {
        split: int((models[f"{split}_accuracy"] == 1).sum()) for split in ("train", "holdout")
    }
    for hits in solved.values():
        low, high = wilson(hits, len(models))
        assert f"{hits / len(models):.1%} [{100 * low:.1f} .. {100 * high:.1f}] reach 100%" in said
    assert "50.0% [36.4 .. 63.6] diverged (24)" in said
    assert f"{models['holdout_accuracy'].mean():.1%} [" in said
    rates = tables["claims"].set_index(["claim", "part", "group"])
    for group in ("all", "generalising", "not generalising"):
        row = rates.loc[("attention_reverses", "the model", group)]
        rate = Rate(int(row["hits"]), int(row["n"]))
        assert f"{rate.text} of the {rate.n}" in said
    assert "that did not diverge" in said


def test_the_headline_counts_models_that_lost_what_they_had_learned(tables):
    models, points = tables["models"], tables["points"]
    solved_once, solves = (models[f"{which}holdout_accuracy"] == 1 for which in ("best_", ""))
    assert np.array_equal(models["lost_it"], solved_once & ~solves)
    lost = models[OUTCOME] == TRAIN_ONLY
    models = models.assign(
        lost_it=lost, best_holdout_accuracy=models["best_holdout_accuracy"].mask(lost, 1.0)
    )
    rates, second, *_ = accuracy_sentences(models, points, 1.0)
    assert rates == accuracy_sentences(tables["models"], points, 1.0)[0]
    assert second.endswith(f"had lost it again by the last one ({lost.sum()}).")


def test_figures_show_the_tables(tables, pictures):
    models = tables["models"]
    heights = pictures["histogram-holdout"]["versions"][0]["data.0.y"]
    assert len(heights) == 41
    assert heights[-1] == pytest.approx((models["holdout_accuracy"] == 1).mean(), rel=1e-3)
    assert sum(heights) == pytest.approx(0.5, abs=0.01)  # what diverged has no bar
    curves = tables["curves"]
    names = list(curves["scope"].unique())
    assert names == list(scopes(models))
    assert len(names) == 1 + 2 + 8
    picture = pictures["curves-loss-train"]
    assert picture["axis"] == "scope"
    for name, version in zip(names, picture["versions"], strict=True):
        rows = curves[(curves["scope"] == name) & (curves["metric"] == "train_loss")]
        drawn = np.array(version["data.4.y"], dtype=float)
        np.testing.assert_allclose(drawn, rows["q50"], rtol=1e-3)
    heatmap = pictures["rates-random-holdout"]["figure"]["data"][0]
    points = tables["points"].set_index(["split", "weight_decay", "lr"])["holdout_perfect_rate"]
    for row, decay in zip(heatmap["z"], AXES["weight_decay"], strict=True):
        for value, lr in zip(row, AXES["lr"], strict=True):
            assert value == pytest.approx(points["random", decay, lr], rel=1e-3)
    dots = pictures["claim-increments"]["figure"]["data"][0]
    rates = tables["claims"]
    chosen = rates[(rates["claim"] == "increments") & (rates["group"] == "generalising")]
    np.testing.assert_allclose(dots["x"], chosen["rate"], rtol=1e-3)


def test_patterns_are_those_of_the_models(population, pictures, html):
    numbers = [
        int(n) for n in re.findall(r'<article data-model="\d+"(?: hidden)?><h3>Model (\d+)', html)
    ]
    assert sorted(numbers) == np.flatnonzero(population.metrics["diverged_at"].isna()).tolist()
    tokens = population.config.task.sequences()[:, :-1]
    for i in (0, len(numbers) - 1):
        _, cache = population.model(numbers[i]).run_with_cache(tokens)
        mean = np.asarray(cache["pattern", 1]).mean(0)[0]
        shown = np.array(pictures["pattern-1-0"]["versions"][i]["data.0.z"], dtype=float)
        past = np.tril_indices_from(mean)
        np.testing.assert_allclose(shown[past], mean[past], atol=1e-4)


def test_the_page_holds_all_it_needs(html):
    assert "&lt;b&gt;mixed" in html
    assert "<b>mixed" not in html.replace("<b>&lt;b&gt;mixed", "")
    assert len(html.encode()) < 2_500_000
    assert re.findall(r"(?:src|href|action)=\"([^\"]*)\"", html.split("<script")[0]) == ["data:,"]


def test_each_model_comes_with_the_command_that_trains_it(population, html):
    said = re.findall(r"<code>(jax-revinc train .*?)</code>", html)
    assert len(said) == len(MODELS) // 2
    numbers = re.findall(r"<h3>Model (\d+)", html)
    for number, command in list(zip(numbers, said, strict=True))[:3]:
        cfg, _ = train_command.parse(shlex.split(command)[2:])
        assert cfg == population.run_config(int(number))


OTHER_RECIPES = {
    "the tutorial's": TUTORIAL,
    "attention only": TrainConfig(
        model=HookedTransformerConfig(
            n_layers=1,
            d_model=4,
            d_head=2,
            n_ctx=9,
            d_vocab=7,
            attn_only=True,
            normalization_type=None,
        ),
        task=ReverseIncrement(length=3, reverse=False),
        split="random",
        steps=20,
    ),
    "of other sizes": dataclasses.replace(
        TUTORIAL,
        model=TUTORIAL.model.replace(d_model=8, n_heads=4, dtype="float64"),
        b2=0.99,
        lr=3e-3,
    ),
    "another task, of the tutorial's sizes": dataclasses.replace(
        TUTORIAL, task=Copy(length=4, n_symbols=4)
    ),
    "a drawn task": dataclasses.replace(
        TUTORIAL, task=Brackets(), model=TUTORIAL.model.replace(n_ctx=14)
    ),
}


@pytest.mark.parametrize("cfg", OTHER_RECIPES.values(), ids=OTHER_RECIPES)
def test_commands_say_what_a_recipe_changes_and_no_more(cfg):
    command = training_commands.train_command(cfg, "runs/a b")
    parsed, args = train_command.parse(shlex.split(command)[2:])
    assert parsed == cfg
    assert str(args.out) == "runs/a b"
    if cfg == TUTORIAL:
        assert len(shlex.split(command)) == 4 + 2 * len(IDENTITY)


PLANS = {
    "seeds": sweep(RECIPE, {}, seeds=range(3, 7)),
    "some seeds": sweep(RECIPE, {}, seeds=[1, 4, 5]),
    "one model": sweep(RECIPE, {}, seeds=[2]),
    "rates and seeds": sweep(RECIPE, AXES, seeds=range(2)),
    "crossed seeds": sweep(RECIPE, {"init_seed": [0, 1], "data_seed": [5, 6, 7]}),
    "one seed fixed": sweep(RECIPE, {"data_seed": [3]}, seeds=range(4)),
    "another rate": sweep(dataclasses.replace(RECIPE, lr=0.5), {}, seeds=range(2)),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_one_command_trains_the_population_again(plan):
    population = SimpleNamespace(
        planned=plan, config=RECIPE, engine={"width": "24"}, path="a store"
    )
    words = shlex.split(training_commands.population_command(population))[2:]
    cfg, args = population_command.parse(words)
    axes = {name: getattr(args, name) for name in IDENTITY if name in args}
    models = sweep(cfg, axes, args.seeds)
    assert args.width == 24
    pd.testing.assert_frame_equal(
        models.sort_values(list(IDENTITY), ignore_index=True),
        plan.sort_values(list(IDENTITY), ignore_index=True),
    )


def test_what_no_single_sweep_gives_has_no_command():
    plan = pd.concat([PLANS["seeds"], PLANS["crossed seeds"]], ignore_index=True)
    population = SimpleNamespace(planned=plan, config=RECIPE, engine={"width": "24"}, path="s")
    assert training_commands.population_command(population) == ""


def test_models_of_every_kind_are_shown(tables, monkeypatch):
    models, cfg = tables["models"], RECIPE.model
    rare = models.index[models[OUTCOME] == GENERALISES][0]
    many = pd.concat([models[models[OUTCOME] == "neither"]] * 40 + [models.loc[[rare]]])
    many.index = np.arange(len(many))
    chosen = chosen_models(many, cfg, 8)
    assert len(chosen) == 300 < len(many)
    assert len(many) - 1 in chosen.index
    assert chosen.equals(chosen_models(many, cfg, 8))
    kind = [OUTCOME, "attention_reverses", *(f"increments.{part}" for part in COMPONENTS)]
    assert len(chosen[kind].drop_duplicates()) == len(many[kind].drop_duplicates())
    assert len(chosen_models(many, cfg, 80)) == 7  # long sequences: room for few
    assert len(chosen_models(many, cfg, 8000)) == 1


# Rates and seeds


def test_rates_are_compared_with_care():
    assert compare_rates(Rate(90, 100), Rate(10, 100)) == "more often"
    assert compare_rates(Rate(10, 100), Rate(90, 100)) == "less often"
    assert compare_rates(Rate(50, 100), Rate(55, 100)) == "intervals overlap"
    assert compare_rates(Rate(9, 9), Rate(0, 1000)) == "too few models"
    assert compare_rates(Rate(0, 0), Rate(0, 1000)) == "too few models"
    assert Rate(0, 0).text == "no models"


def test_the_interval_of_a_mean():
    low, high = mean_interval(pd.Series([0.4, 0.5, 0.6, np.nan]))
    assert (low, high) == pytest.approx((0.5 - 0.2484, 0.5 + 0.2484), abs=1e-3)
    assert np.isnan(mean_interval(pd.Series([0.4]))).all()


def crossed(effect_of_init, split="random"):
    """Models of crossed seeds whose accuracy hangs on the init seed, and on chance."""
    axes = {"init_seed": range(8), "data_seed": range(6), "lr": [1e-3, 1e-2]}
    models = sweep(dataclasses.replace(RECIPE, split=split), axes)
    noise = np.random.default_rng(1).normal(size=len(models))
    accuracy = effect_of_init * models["init_seed"] + 50 * models["lr"] + noise
    return models.assign(holdout_accuracy=accuracy)


def test_the_seed_that_decides_is_found():
    table = seeds_table(crossed(1.0)).set_index("seed")
    assert list(table.index) == ["init seed", "data seed"]
    # By hand: the variance of the level means over that of the models, within points.
    models = crossed(1.0)
    within = models["holdout_accuracy"] - models.groupby("lr")["holdout_accuracy"].transform("mean")
    means = within.groupby(models["init_seed"]).transform("mean")
    assert table.loc["init seed", "explained"] == pytest.approx(
        (means**2).sum() / (within**2).sum()
    )
    assert table.loc["init seed", "explained"] > 0.5 > table.loc["init seed", "chance"]
    assert table.loc["data seed", "explained"] < table.loc["data seed", "chance"]


def test_seeds_that_vary_together_or_do_nothing_are_no_factors():
    together = sweep(RECIPE, {}, seeds=range(5))
    assert seed_factors(together) == {"init seed": "init_seed"} or len(seed_factors(together)) == 1
    assert seeds_table(together.assign(holdout_accuracy=np.arange(5.0))).empty
    half = sweep(dataclasses.replace(RECIPE, split="random"), {"data_seed": [0, 1]}, seeds=range(3))
    assert list(seed_factors(half)) == ["init and split seed", "data seed"]
    assert list(seed_factors(half.assign(split="prefix"))) == ["init seed", "data seed"]


# Other populations


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sourceless(ReverseIncrement):
    """A task in which no single token decides."""

    name: ClassVar[str] = "sourceless"
    sources: ClassVar[tuple[int, ...]] = ()
    answers: ClassVar[tuple[int, ...]] = ()


def test_a_task_without_sources_has_an_atlas_without_claims(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, Sourceless.name, Sourceless)
    model = TUTORIAL.model.replace(n_layers=1, n_ctx=5)
    cfg = dataclasses.replace(RECIPE, task=Sourceless(length=2), model=model, steps=20)
    population = train_population(cfg, sweep(cfg, {}, seeds=range(2)), tmp_path / "s", width=2)
    html = write_atlas(population).read_text(encoding="utf-8")
    assert "No claims were put to these models" in html
    assert "sourceless, no single token does" in html
    assert {name for name in embedded(html) if name.startswith("claim")} == set()
    assert {file.stem for file in (population.path / FOLDER).iterdir()} == {
        "models",
        "points",
        "curves",
    }


@pytest.mark.slow
def test_a_single_model_with_attention_only(tmp_path):
    model = HookedTransformerConfig(
        n_layers=1, d_model=4, d_head=2, n_heads=2, n_ctx=5, d_vocab=5, attn_only=True
    )
    cfg = dataclasses.replace(RECIPE, model=model, steps=20)
    population = train_population(cfg, sweep(cfg, {}, seeds=[7]), tmp_path / "one", width=2)
    html = write_atlas(population).read_text(encoding="utf-8")
    said = text_of(html)
    assert "1 model: reverse and add 1" in said
    assert "The only model." in said
    assert "MLP" not in said.split("Accuracy and learning curves")[0].replace("no MLPs", "")
    assert {"pattern-0-0", "pattern-0-1"} <= set(embedded(html))
    found = pd.read_parquet(tmp_path / "one" / FOLDER / "claims.parquet")
    assert set(found["part"]) >= {*component_labels(model), "any head", "no component"}
    assert not found["part"].str.contains("MLP").any()
    assert "tutorial" not in set(found["claim"])


def test_a_population_of_which_all_diverged(tmp_path, open_offline):
    cfg = dataclasses.replace(RECIPE, lr=HOPELESS)
    population = train_population(cfg, sweep(cfg, {}, seeds=range(3)), tmp_path / "d", width=WIDTH)
    path = write_atlas(population)
    said = text_of(path.read_text(encoding="utf-8"))
    assert f"{Rate(3, 3).text} diverged (3)" in said
    assert "there are no patterns to show" in said
    tab, events = open_offline(path)
    look_at_all(tab)
    assert tab.locator("[data-figure='histogram-train'] .gtitle").is_visible()
    assert not [event for event in events if not event.startswith("request: ")]


def test_an_unfinished_population_is_said_to_be(copy):
    (copy.path / "metrics" / "000001.parquet").unlink()
    said = text_of(write_atlas(load(copy.path)).read_text(encoding="utf-8"))
    assert f"the page is about {WIDTH} of {len(MODELS)} models" in said
    assert len(pd.read_parquet(copy.path / FOLDER / "models.parquet")) == WIDTH


def test_tables_that_no_longer_hold_are_removed(copy):
    for kind in ("csv", "parquet"):
        (copy.path / FOLDER / f"seeds.{kind}").write_text("of an earlier atlas")
    write_atlas(copy)
    assert not list((copy.path / FOLDER).glob("seeds.*"))


# From the command line


def run(monkeypatch, capsys, *args):
    monkeypatch.setattr("sys.argv", ["jax-revinc", *map(str, args)])
    status = main()
    return status, capsys.readouterr()


def test_the_command_says_where_things_are(copy, monkeypatch, capsys):
    (copy.path / "atlas.html").unlink()
    status, said = run(monkeypatch, capsys, "atlas", copy.path)
    assert status == 0
    assert said.out.splitlines() == [
        f"Tables: {copy.path / FOLDER}",
        f"Page to open: {copy.path / 'atlas.html'}",
    ]
    assert (copy.path / "atlas.html").exists()


def test_a_terminal_shows_that_the_atlas_goes_on_until_its_page_is_there(copy, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    status, said = run(monkeypatch, capsys, "atlas", copy.path)
    assert status == 0
    assert "measuring the claims on every model" in said.out
    assert "100%" not in said.out
    assert any(frame in said.out for frame in SPINNERS["dots"]["frames"])


def test_no_store_and_no_finished_model_are_said_in_a_sentence(copy, tmp_path, monkeypatch, capsys):
    status, said = run(monkeypatch, capsys, "atlas", tmp_path / "nothing")
    assert status == 2
    assert "is not a population folder" in said.err
    for file in (copy.path / "metrics").iterdir():
        file.unlink()
    (copy.path / "atlas.html").unlink()
    status, said = run(monkeypatch, capsys, "atlas", copy.path)
    assert status == 2
    assert said.err.strip().endswith("has no finished models yet")
    assert not (copy.path / "atlas.html").exists()


@pytest.mark.parametrize("damaged", ["metrics/000001.parquet", "weights/unembed.b_U/c/1/0"])
def test_a_damaged_chunk_is_named_and_the_old_page_stays(copy, monkeypatch, capsys, damaged):
    before = (copy.path / "atlas.html").read_bytes()
    file = copy.path / damaged
    file.write_bytes(file.read_bytes()[:-9])
    status, said = run(monkeypatch, capsys, "atlas", copy.path)
    assert status == 2
    assert "damaged" in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert (copy.path / "atlas.html").read_bytes() == before


# In a browser


@pytest.fixture
def opened(open_offline, population):
    return open_offline(population.path / "atlas.html")


def shown_model(tab):
    return tab.locator("article:visible h3").text_content()


def written(tab, figure):
    look_at(tab, figure)
    return tab.locator(f"[data-figure='{figure}'] .heatmap-label").all_text_contents()


def test_the_page_opens_offline_without_a_complaint(opened, population):
    tab, events = opened
    look_at_all(tab)
    page_itself = f"request: {(population.path / 'atlas.html').as_uri()}"
    assert [event for event in events if not event.startswith("request: data:")] == [page_itself]
    places = tab.locator("[data-figure]").all()
    titles = tab.locator("[data-figure] .gtitle").all_text_contents()
    assert titles == [place.get_attribute("aria-label") for place in places]


def test_a_click_on_a_point_opens_its_model(opened, pictures):
    tab, events = opened
    before = shown_model(tab), written(tab, "pattern-0-0")
    look_at(tab, "scatter")
    points = tab.locator("[data-figure='scatter'] .scatterlayer .trace").nth(1).locator(".point")
    box = points.last.bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.wait_for_timeout(400)
    name = shown_model(tab)
    assert name != before[0]
    assert written(tab, "pattern-0-0") != before[1]
    chosen = tab.locator(".chooser[data-axis='model'] option:checked")
    assert f"Model {chosen.get_attribute('data-name')}" == name
    index = int(chosen.get_attribute("value"))
    shown = np.array(pictures["pattern-0-0"]["versions"][index]["data.0.z"], dtype=float)
    numbers = [float(text) for text in written(tab, "pattern-0-0") if text]
    np.testing.assert_allclose(sorted(numbers), sorted(shown[~np.isnan(shown)]), atol=0.0051)
    assert tab.locator("article:visible").count() == 1
    number = name.split()[1]
    report, export, train = tab.locator("article:visible code").all_text_contents()
    assert report.startswith("jax-revinc report ")
    assert report.endswith(f" --model {number}")
    assert f"--model {number} " in export
    assert f"runs/model-{number} " in train
    assert not [event for event in events if event.startswith("error")]


def test_only_settings_that_differ_from_the_preset_are_unfolded(opened):
    tab, _ = opened
    shown = tab.locator("table.settings tr:visible")
    texts = [row.strip() for row in shown.all_text_contents()]
    assert {"n_ctx5", "length2", "batch_size4"} <= set(texts)
    assert [text for text in texts if text.startswith("n_layers")] == []
    tab.get_by_text("All settings").click()
    assert shown.count() > 2 * len(texts)


def test_models_can_be_chosen_by_keyboard_and_by_number(opened):
    tab, _ = opened
    form = tab.locator(".chooser[data-axis='model']")
    names = [option.get_attribute("data-name") for option in form.locator("option").all()]
    assert ring(tab) == point(tab, 0)
    form.locator("select").focus()
    tab.keyboard.press("ArrowDown")
    assert shown_model(tab) == f"Model {names[1]}"
    assert ring(tab) == point(tab, 1)
    form.locator("input").fill(names[-1])
    tab.keyboard.press("Enter")
    assert shown_model(tab) == f"Model {names[-1]}"
    form.locator("input").fill("99999")
    tab.keyboard.press("Enter")
    assert form.locator(".complaint").text_content() == (
        f"type the number of a model in the list, such as {names[0]}"
    )
    assert shown_model(tab) == f"Model {names[-1]}"


def scatter_data(tab):
    look_at(tab, "scatter")
    return tab.evaluate(
        "document.querySelector(\"[data-figure='scatter']\").data.map(({x, y, customdata}) => ({x, y, customdata}))"
    )


def ring(tab):
    """Where the ring is."""
    mark = scatter_data(tab)[-1]
    return mark["x"][0], mark["y"][0]


def point(tab, index):
    """Where a shown model's point is."""
    (place,) = [
        (trace["x"][i], trace["y"][i])
        for trace in scatter_data(tab)[:-1]
        for i, model in enumerate(trace["customdata"])
        if model == index
    ]
    return place


def test_axes_and_distributions_can_be_chosen(opened, tables):
    tab, events = opened
    tab.locator(".axes select[name=x]").select_option("training loss")
    tab.locator(".axes select[name=y]").select_option("increment made by MLPs")
    models, (drawn, *_) = tables["models"], scatter_data(tab)
    generalising = models[models[OUTCOME] == GENERALISES]
    np.testing.assert_allclose(sorted(drawn["x"]), sorted(generalising["train_loss"]), rtol=1e-3)
    shares = generalising["increment_share.mlps"].astype(float)
    np.testing.assert_allclose(sorted(drawn["y"]), sorted(shares), rtol=1e-3)
    chooser = tab.locator(".chooser[data-axis='scope'] select")
    labels = chooser.locator("option").all_text_contents()
    assert labels == list(scopes(models))
    chooser.select_option(labels[1])
    band = "document.querySelector(\"[data-figure='curves-accuracy-holdout']\").data[4].y"
    curves = tables["curves"]
    expected = curves[(curves["scope"] == labels[1]) & (curves["metric"] == "holdout_accuracy")]
    look_at(tab, "curves-accuracy-holdout")
    np.testing.assert_allclose(tab.evaluate(band), expected["q50"], rtol=1e-3)
    assert not [event for event in events if event.startswith("error")]
    tab.set_viewport_size({"width": 360, "height": 800})
    tab.reload()
    look_at_all(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
