from __future__ import annotations

import dataclasses
import json
import os
import shutil
from concurrent.futures import wait
from contextlib import ExitStack

import jax
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from populations import (
    HOPELESS,
    RECIPE,
    SMALL,
    WIDTH,
    bits,
    claimed,
    names_below,
    outcomes,
    refuses_in_one_line,
)

from jax_revinc import HookedTransformer, UserError, train
from jax_revinc.population import load, train_population
from jax_revinc.population import store as names
from jax_revinc.population import training as training_module
from jax_revinc.population.progress import Progress
from jax_revinc.population.shards import DIVERGED, curve_names
from jax_revinc.population.store import read_store
from jax_revinc.population.success_rate import by_point, interval
from revinc import sweep as sweep_module
from revinc.engine import METRICS
from revinc.sweep import IDENTITY, run_of, sweep
from revinc.trainer import Diverged, Interrupted

pytestmark = pytest.mark.optimized


@pytest.fixture
def population(tmp_path):
    """A function that trains a population in a folder of its own."""

    def population_(models, cfg=RECIPE, **options):
        return train_population(cfg, models, tmp_path / "new", **{"width": WIDTH, **options})

    return population_


class Sayings(Progress):
    """Keeps what is said, and calls something after each shard."""

    def __init__(self, after_a_shard=lambda: None):
        super().__init__(quiet=True)
        self.said, self.after_a_shard = [], after_a_shard

    def say(self, sentence):
        self.said.append(sentence)

    def finished(self, measured):
        super().finished(measured)
        self.after_a_shard()


def stamps(folder):
    return {
        file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.rglob("*.parquet")
    }


# A model of a population


def test_a_model_is_the_one_that_train_trains(population, tmp_path):
    cfg = dataclasses.replace(RECIPE, model=RECIPE.model.replace(dtype="float64"))
    axes = {"split": ["prefix", "random"], "init_seed": [3], "lr": [1e-2, 3e-2], "split_seed": [8]}
    trained = population(sweep(cfg, axes, seeds=[4]), cfg)
    for number in (0, 3):
        run = train(trained.run_config(number), tmp_path / str(number))
        weights = trained.model(number).state_dict()
        for name, w in run.state_dict().items():
            # The gradient of b_K is rounding noise, and Adam divides by its size.
            tolerance = 1e-6 if name.endswith("b_K") else 1e-9
            np.testing.assert_allclose(weights[name], w, rtol=0, atol=tolerance, err_msg=name)
        for metric in METRICS:
            ours, theirs = trained.curves(metric)[number], run.metrics[metric]
            np.testing.assert_allclose(ours, theirs, rtol=1e-10)
        assert trained.steps.tolist() == run.metrics["step"].tolist()


def test_in_float32_a_model_begins_as_the_one_that_train_trains(small, tmp_path):
    run = train(small.run_config(2), tmp_path / "run")
    for metric in ("train_loss", "holdout_loss"):
        np.testing.assert_allclose(small.curves(metric)[2][:2], run.metrics[metric][:2], rtol=1e-4)
    for metric in ("train_accuracy", "holdout_accuracy"):
        assert small.curves(metric)[2][0] == run.metrics[metric][0]


def test_the_last_metrics_are_those_of_the_final_model(small):
    sequences = RECIPE.task.sequences()
    for number in (0, 8):
        logits = np.asarray(small.model(number)(sequences[:, :-1]))
        right = logits.argmax(-1)[:, 4:] == sequences[:, 5:]
        assert small.metrics.loc[number, "train_accuracy"] == right[:200].mean()
        assert small.metrics.loc[number, "holdout_accuracy"] == right[200:].mean()


def test_a_model_is_the_same_whatever_population_it_is_in(small, population):
    """Another order, other neighbours, other shards, and none that diverge."""
    other = sweep(RECIPE, {"lr": [1e-3, 1e-2]}, seeds=[9, 4, 2, 0, 1, 3])
    found, expected = outcomes(population(other).path), outcomes(small.path)
    shared = found.keys() & expected.keys()
    assert {(lr, seed) for lr, *_, seed in shared} == {(1e-2, seed) for seed in range(5)}
    assert all(found[model] == expected[model] for model in shared)


def test_a_model_that_diverges_is_recorded_at_the_step_at_which_train_says_so(small, tmp_path):
    diverged = small.metrics["lr"] == HOPELESS
    assert small.metrics["diverged_at"].isna().equals(~diverged)
    for number in small.metrics.index[diverged][:2]:
        step = small.metrics.loc[number, "diverged_at"]
        with pytest.raises(Diverged, match=f"at step {step} "):
            train(small.run_config(number), tmp_path / str(number))


def test_a_model_has_no_metrics_from_where_it_diverged(small):
    diverged = (small.metrics["lr"] == HOPELESS).to_numpy()
    for metric in METRICS:
        assert np.isnan(small.metrics[metric]).to_numpy().tolist() == diverged.tolist()
        assert np.isfinite(small.curves(metric)[:, 0]).all()
        assert np.isnan(small.curves(metric)[diverged, 1:]).all()
        assert np.isfinite(small.curves(metric)[~diverged]).all()


def test_a_loss_that_breaks_between_evaluations_or_only_there_is_dated():
    class Broken:
        """Model 0 breaks in the losses, 1 at an evaluation, 2 from the beginning, 3 never."""

        evaluations = -1

        def start(self, runs, weights):
            return None

        def advance(self, state, batches):
            losses = np.ones(batches.shape[:2])
            if self.evaluations == 1:
                losses[0, 5:] = np.inf
            return None, losses

        def evaluate(self, state):
            self.evaluations += 1
            loss = np.array([1.0, np.nan if self.evaluations == 2 else 1.0, np.nan, 1.0])
            return dict.fromkeys(METRICS, loss)

        def weights(self, state):
            return {}

    models = sweep(RECIPE, seeds=range(4))
    measured, _ = training_module.train_shard(Broken(), RECIPE, models, lambda n: None)
    assert measured["diverged_at"].tolist() == [25, 40, 0, pd.NA]
    finite = np.isfinite(np.stack(measured["train_loss_curve"])).sum(axis=1)
    assert finite.tolist() == [2, 2, 0, 4]


# The handle


def test_a_population_opens_as_a_table_and_as_models(small):
    opened = load(str(small.path))
    assert len(opened) == 10
    assert repr(opened) == f"Population({str(small.path)!r}: 10 of 10 models)"
    assert opened.config == RECIPE
    assert opened.engine["width"] == str(WIDTH)
    assert opened.metrics.index.tolist() == list(range(10))
    assert opened.metrics.columns.tolist() == [*IDENTITY, "diverged_at", *METRICS]
    assert opened.planned.equals(opened.metrics[list(IDENTITY)])
    assert opened.steps.tolist() == [0, 20, 40, 60]
    assert opened.curves("train_loss").shape == (10, 4)
    assert isinstance(opened.model(3), HookedTransformer)
    assert opened.run_config(3) == dataclasses.replace(RECIPE.with_seed(1), lr=HOPELESS)


def test_params_are_stacked_as_they_are_asked_for(small):
    every = small.params(slice(None))
    assert every["embed.W_E"].shape == (10, 5, 4)
    assert bits(small.params(slice(2, 9, 3))) == bits({n: w[2:9:3] for n, w in every.items()})
    for asked in ([9, 0, 4, 4], np.array([9, 0, 4, 4]), small.metrics.index[[9, 0, 4, 4]]):
        assert bits(small.params(asked)) == bits({n: w[[9, 0, 4, 4]] for n, w in every.items()})
    calm = small.metrics["diverged_at"].isna()
    assert bits(small.params(calm)) == bits({n: w[::2] for n, w in every.items()})
    assert small.params([])["embed.W_E"].shape == (0, 5, 4)
    assert bits(small.model(4).state_dict()) == bits({n: w[4] for n, w in every.items()})


def test_params_are_made_for_vmap(small):
    tokens = RECIPE.task.sequences()[:3, :-1]

    def logits(params):
        return HookedTransformer(RECIPE.model, params=params)(tokens)

    together = jax.jit(jax.vmap(logits))(small.params([0, 6]))
    np.testing.assert_allclose(together[1], small.model(6)(tokens), rtol=1e-5, atol=1e-6)


def test_only_the_shards_that_are_asked_for_are_read(small, monkeypatch):
    read = []
    opened = load(small.path)
    original = opened._read_weights
    monkeypatch.setattr(opened, "_read_weights", lambda c: read.append(int(c)) or original(c))
    opened.params([9, 8, 1])
    assert read == [0, 2]


@pytest.mark.parametrize("numbers", [[10], [-1], [0, 99]], ids=str)
def test_a_model_that_is_not_there_is_named(small, numbers):
    with pytest.raises(UserError, match=f"no finished model {numbers[-1]}"):
        small.params(numbers)
    with pytest.raises(UserError, match=f"no model {numbers[-1]}"):
        small.run_config(numbers[-1])


@pytest.mark.parametrize("number", [np.int64(3), np.uint8(3), np.array(3)], ids=repr)
def test_a_models_number_may_be_numpys(small, number):
    assert bits(small.model(number).state_dict()) == bits(small.model(3).state_dict())
    assert small.run_config(number) == small.run_config(3)
    assert bits(small.params([number])) == bits(small.params([3]))


@pytest.mark.parametrize("number", [1.5, np.float64(3), True, "3", None, [3]], ids=repr)
def test_what_is_no_models_number_is_refused(small, number):
    for act in (small.model, small.run_config):
        with refuses_in_one_line("model must be an integer, not"):
            act(number)


@pytest.mark.parametrize(
    ("models", "phrase"),
    [
        ([1.0, 2.0], "a mask or a slice, not fractions"),
        ([0.5], "not fractions"),
        (["1"], "not words"),
        ([None], "not object"),
        ([[1], [2, 3]], "not lists of several lengths"),
        ([[1, 2]], "not integers in 2 dimensions"),
        (3, "not integers in 0 dimensions"),
        (np.ones(9, bool), "an entry for each of the 10 finished models, not 9"),
        ([True, False], "an entry for each of the 10 finished models, not 2"),
        (np.ones((10, 1), bool), "not booleans in 2 dimensions"),
        (np.array([2**63], "uint64"), "no finished model 9223372036854775808"),
        (slice(0, 4, 0), "slice step cannot be zero"),
        (slice(0.5), "slice indices must be integers"),
    ],
    ids=str,
)
def test_what_chooses_no_models_is_refused(small, models, phrase):
    with refuses_in_one_line(phrase):
        small.params(models)


def test_a_metric_that_is_not_there_is_named(small):
    with pytest.raises(UserError, match="unknown metric 'accuracy'; choose from train_loss"):
        small.curves("accuracy")


def test_an_unfinished_population_shows_what_is_finished(folder):
    (folder / names.METRICS / "000001.parquet").unlink()
    opened = load(folder)
    assert repr(opened).endswith(": 6 of 10 models)")
    assert opened.metrics.index.tolist() == [0, 1, 2, 3, 8, 9]
    assert opened.curves("train_loss").shape == (6, 4)
    assert bits(opened.params(slice(4, 6))) == bits(opened.params([8, 9]))
    assert opened.planned.index.tolist() == list(range(10))
    assert opened.run_config(5) == load(folder).run_config(5)
    with pytest.raises(UserError, match="no finished model 5"):
        opened.model(5)


def test_a_population_of_which_nothing_is_finished_opens(tmp_path):
    with claimed(tmp_path / "new", RECIPE, {"width": "4"}, SMALL, resume=False):
        opened = load(tmp_path / "new")
    assert len(opened) == 0
    assert opened.params(slice(None))["embed.W_E"].shape == (0, 5, 4)
    with pytest.raises(UserError, match="no finished models yet"):
        _ = opened.metrics


def test_reading_leaves_a_store_as_it_is(small, folder):
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    outcomes(folder)
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes all")
def test_a_store_that_may_not_be_written_is_read(small, folder):
    for file in (folder, *folder.rglob("*")):
        file.chmod(0o555 if file.is_dir() else 0o444)
    try:
        assert outcomes(folder) == outcomes(small.path)
    finally:
        for file in (folder, *folder.rglob("*")):
            file.chmod(0o755 if file.is_dir() else 0o644)


def test_other_tools_open_a_store(small):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(small.path / names.WEIGHTS, mode="r")
    every = small.params(slice(None))
    assert sorted(name for name, _ in group.arrays()) == sorted(every)
    for name, weights in every.items():
        assert group[name].shape == (12, *weights.shape[1:])
        assert np.array_equal(group[name][:10], weights, equal_nan=True)
        assert np.isnan(group[name][10:]).all()
    table = pd.read_parquet(small.path / names.METRICS).set_index("model").sort_index()
    assert table[small.metrics.columns].equals(small.metrics)
    assert np.array_equal(np.stack(table["train_loss_curve"]), small.curves("train_loss"), True)


def test_tensorstore_opens_a_store(small):
    tensorstore = pytest.importorskip("tensorstore")
    for name, weights in small.params(slice(None)).items():
        place = {"driver": "file", "path": f"{small.path / names.WEIGHTS / name}/"}
        array = tensorstore.open({"driver": "zarr3", "kvstore": place}).result().read().result()
        assert array.dtype == weights.dtype
        assert np.array_equal(array[:10], weights, equal_nan=True)


# Adding models


def test_adding_models_renumbers_none_and_ends_as_if_all_had_been_asked_for_at_once(
    small, folder, population
):
    before, shards = load(folder).metrics, stamps(folder / names.METRICS)
    asked = sweep(RECIPE, {"lr": [1e-3, 1e-2]}, seeds=range(3, 8))
    added = train_population(RECIPE, asked, folder, resume=True)
    assert len(added) == len(added.planned) == 18
    assert added.metrics.loc[:9].equals(before)
    assert stamps(folder / names.METRICS).items() >= shards.items()
    assert outcomes(folder) == outcomes(small.path) | outcomes(population(asked).path)
    assert added.run_config(10) == dataclasses.replace(RECIPE.with_seed(3), lr=1e-3)


def test_asking_again_for_what_is_there_changes_nothing(small, folder):
    before = stamps(folder / names.METRICS)
    train_population(RECIPE, SMALL, folder, resume=True)
    train_population(RECIPE, SMALL.iloc[3:5], folder, resume=True)
    assert stamps(folder / names.METRICS) == before
    assert names_below(folder) == names_below(small.path)


def test_models_that_are_asked_for_twice_are_trained_once(population):
    models = pd.concat([sweep(RECIPE, seeds=[1, 2]), sweep(RECIPE, seeds=[2, 3])])
    trained = population(models)
    assert trained.metrics["init_seed"].tolist() == [1, 2, 3]


def test_a_recipe_with_other_rates_and_seeds_is_the_same_population(folder):
    other = dataclasses.replace(RECIPE.with_seed(77), lr=0.5)
    grown = train_population(other, sweep(other), folder, resume=True)
    assert grown.run_config(10) == other


# What is refused


@pytest.mark.parametrize(
    ("cfg", "models", "options", "phrases"),
    [
        (RECIPE, SMALL, {}, ["already holds a population", "--resume"]),
        (
            dataclasses.replace(RECIPE, steps=70, batch_size=8),
            SMALL,
            {"resume": True},
            ["another config", "steps: 60 here, 70 there", "batch_size: 16 here, 8 there"],
        ),
        (RECIPE, SMALL, {"resume": True, "width": 8}, ["'width': '4'", "'width': '8'"]),
        (
            dataclasses.replace(RECIPE, snapshots=(20,)),
            SMALL,
            {"resume": True},
            ["leave snapshots out"],
        ),
        (RECIPE, SMALL.iloc[:0], {"resume": True}, ["no models"]),
    ],
    ids=["unasked", "recipe", "width", "snapshots", "nothing"],
)
def test_what_does_not_belong_into_a_store_is_refused(folder, cfg, models, options, phrases):
    before = stamps(folder)
    with pytest.raises(UserError) as refusal:
        train_population(cfg, models, folder, **options)
    assert all(phrase in str(refusal.value) for phrase in phrases)
    assert stamps(folder) == before


def drop_column(folder, name):
    """Make of a store one of a version that did not sweep a field."""
    for file in [folder / names.MODELS, *sorted((folder / names.METRICS).iterdir())]:
        table = pq.read_table(file)
        pq.write_table(table.drop_columns([name]), file)


def test_a_store_of_before_lr_end_was_swept_opens(folder):
    before = load(folder).metrics
    drop_column(folder, "lr_end")
    pd.testing.assert_frame_equal(load(folder).metrics, before)
    assert (load(folder).metrics["lr_end"] == 0).all()


def test_a_column_that_a_store_lacks_has_the_configs_value_if_it_was_swept_later(
    folder, monkeypatch
):
    before = load(folder).metrics
    drop_column(folder, "weight_decay")
    with refuses_in_one_line("the table lacks the columns weight_decay"):
        load(folder)
    monkeypatch.setattr(sweep_module, "IN_EVERY_STORE", ("lr", "lr_end", "split"))
    opened = load(folder)
    pd.testing.assert_frame_equal(opened.metrics, before)
    assert opened.run_config(3) == run_of(RECIPE, SMALL.iloc[3])
    added = train_population(
        RECIPE, sweep(RECIPE, {"weight_decay": [0.5]}, seeds=[0]), folder, resume=True
    )
    pd.testing.assert_frame_equal(added.metrics.iloc[:-1], before)
    assert added.metrics["weight_decay"].iloc[-1] == 0.5
    pd.testing.assert_frame_equal(load(folder).planned, added.planned)


TABLES = {
    "a list": ([0, 1], "must be a table"),
    "no column": (SMALL.drop(columns="lr"), "must have one column 'lr', not 0"),
    "a column twice": (SMALL.assign(x=1).rename(columns={"x": "lr"}), "'lr', not 2"),
    "words as rates": (
        SMALL.assign(lr="fast"),
        "models: the table of models has a wrong value: lr must be a number, not 'fast'",
    ),
    "NaN rates": (
        SMALL.assign(lr=np.nan),
        "models: the table of models has a wrong value: lr must be a finite number at least 0",
    ),
    "rates below 0": (
        SMALL.assign(weight_decay=-1),
        "weight_decay must be a finite number at least 0, not -1",
    ),
    "rates of 400 digits": (SMALL.assign(lr=[10**400] * 10), "lr must be a finite number"),
    "fractions as seeds": (SMALL.assign(init_seed=0.5), "init_seed must be an integer, not 0.5"),
    "large seeds": (SMALL.assign(data_seed=2**32), "data_seed must be below 2**32"),
    "absent seeds": (SMALL.assign(split_seed=pd.NA), "split_seed must be an integer"),
    "another split": (
        SMALL.assign(split="sufix"),
        "unknown split 'sufix'; choose from prefix, random",
    ),
    "lists as splits": (
        SMALL.assign(split=[["prefix"]] * 10),
        "models: the table of models has a wrong value: unknown split ['prefix']; choose from",
    ),
}


@pytest.mark.parametrize(("models", "phrase"), TABLES.values(), ids=TABLES)
def test_a_table_that_is_none_of_models_is_refused(tmp_path, models, phrase):
    with refuses_in_one_line(phrase):
        train_population(RECIPE, models, tmp_path / "new", width=WIDTH)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("width", [0, -1, 1.5, "4", True, 10**11, None], ids=repr)
def test_a_width_that_is_none_is_refused(tmp_path, width):
    options = {} if width is None else {"width": width}
    cfg = None if width is None else RECIPE
    with refuses_in_one_line("cfg must be" if width is None else "width must be"):
        train_population(cfg, SMALL, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def edit_config(folder, edit):
    record = json.loads((folder / names.CONFIG).read_text())
    edit(record)
    (folder / names.CONFIG).write_text(json.dumps(record))


def test_another_engine_does_not_go_on(folder):
    edit_config(folder, lambda record: record["engine"].update(platform="abacus"))
    with pytest.raises(UserError, match=r"abacus.*rounds differently"):
        train_population(RECIPE, SMALL, folder, resume=True)


UNREADABLE = {
    "a newer format": lambda f: edit_config(f, lambda record: record.update(format_version=2)),
    "no engine": lambda f: edit_config(f, lambda record: record.pop("engine")),
    "no width": lambda f: edit_config(f, lambda record: record["engine"].pop("width")),
    "width 0": lambda f: edit_config(f, lambda record: record["engine"].update(width="0")),
    "a width in words": lambda f: edit_config(
        f, lambda record: record["engine"].update(width="4k")
    ),
    "no task": lambda f: edit_config(f, lambda record: record.pop("task")),
    "cut config": lambda f: (f / names.CONFIG).write_text('{"format_version": 1, "eng'),
    "no config": lambda f: (f / names.CONFIG).unlink(),
    "no models": lambda f: (f / names.MODELS).unlink(),
    "cut models": lambda f: (f / names.MODELS).write_bytes(b"PAR1"),
    "foreign models": lambda f: pd.DataFrame({"a": [1]}).to_parquet(f / names.MODELS),
}


@pytest.mark.parametrize("damage", UNREADABLE.values(), ids=UNREADABLE)
def test_a_store_that_cannot_be_read_is_named_and_left_alone(folder, damage):
    damage(folder)
    before = stamps(folder)
    with pytest.raises(UserError, match=str(folder)):
        load(folder)
    with pytest.raises(UserError, match=str(folder)):
        train_population(RECIPE, SMALL, folder, resume=True)
    assert stamps(folder) == before


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["thesis.tex", "metrics/mine.parquet", "config.json"])
def test_a_folder_that_is_no_population_is_left_as_it_is(tmp_path, name, resume):
    (tmp_path / "new" / name).parent.mkdir(parents=True)
    (tmp_path / "new" / name).write_text("mine")
    with pytest.raises(UserError, match="belong to no population"):
        train_population(RECIPE, SMALL, tmp_path / "new", resume=resume)
    assert names_below(tmp_path) == [f"new/{name}"]


def test_two_writers_are_refused(folder):
    engine = read_store(folder).engine
    with claimed(folder, RECIPE, engine, SMALL, resume=True):
        before = stamps(folder)
        for resume in (False, True):
            with pytest.raises(UserError, match="being written by another process"):
                train_population(RECIPE, SMALL, folder, resume=resume)
        assert stamps(folder) == before
        assert len(load(folder)) == 10
    train_population(RECIPE, SMALL, folder, resume=True)


def test_what_a_process_killed_before_the_config_left_is_used_again(small, folder):
    shutil.rmtree(folder / names.METRICS)
    (folder / names.METRICS).mkdir()
    (folder / names.CONFIG).rename(folder / (names.CONFIG + ".partial"))
    assert outcomes(train_population(RECIPE, SMALL, folder, width=WIDTH).path) == outcomes(
        small.path
    )


# Damage


def shard_file(folder, shard):
    return folder / names.METRICS / f"{shard:06d}.parquet"


def weight_file(folder, shard, name="embed.W_E"):
    return folder / names.WEIGHTS / name / f"c/{shard}/0/0"


def swap(one, other):
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def flip(file, place):
    damaged = bytearray(file.read_bytes())
    damaged[place] ^= 1
    file.write_bytes(damaged)


def rewrite(file, edit):
    edit(pd.read_parquet(file)).to_parquet(file, index=False)


DAMAGES = {
    "metrics cut": ([1], lambda f: os.truncate(shard_file(f, 1), 999)),
    "metrics empty": ([1], lambda f: os.truncate(shard_file(f, 1), 0)),
    "metrics garbage": ([1], lambda f: shard_file(f, 1).write_bytes(b"garbage" * 99)),
    "metrics missing": ([1], lambda f: shard_file(f, 1).unlink()),
    "metrics swapped": ([0, 1], lambda f: swap(shard_file(f, 0), shard_file(f, 1))),
    "metrics copied": ([1], lambda f: shutil.copy(shard_file(f, 0), shard_file(f, 1))),
    "metrics of some other program": (
        [2],
        lambda f: pd.DataFrame({"a": [1]}).to_parquet(shard_file(f, 2)),
    ),
    "metrics rewritten": ([0], lambda f: rewrite(shard_file(f, 0), lambda table: table)),
    "metrics of fewer models": ([0], lambda f: rewrite(shard_file(f, 0), lambda t: t.head(2))),
    "a bit of a loss": ([1], lambda f: flip(shard_file(f, 1), 60)),
    "weights cut": ([1], lambda f: os.truncate(weight_file(f, 1), 3)),
    "weights empty": ([1], lambda f: os.truncate(weight_file(f, 1), 0)),
    "weights too long": ([1], lambda f: os.truncate(weight_file(f, 1), 9999)),
    "weights missing": ([2], lambda f: weight_file(f, 2).unlink()),
    "weights swapped": ([0, 1], lambda f: swap(weight_file(f, 0), weight_file(f, 1))),
    "a bit of a weight": ([0], lambda f: flip(weight_file(f, 0), 17)),
    "an array missing": ([0, 1, 2], lambda f: shutil.rmtree(f / names.WEIGHTS / "embed.W_E")),
    "an array's description missing": (
        [],
        lambda f: (f / names.WEIGHTS / "embed.W_E/zarr.json").unlink(),
    ),
}


@pytest.mark.parametrize(("shards", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_shard_is_named_and_trained_again_and_no_other(small, folder, shards, damage):
    damage(folder)
    intact = {shard_file(folder, c) for c in range(3) if c not in shards}
    before, progress = stamps(folder / names.METRICS), Sayings()
    train_population(RECIPE, SMALL, folder, resume=True, progress=progress)
    after = stamps(folder / names.METRICS)
    assert all(after[file] == before[file] for file in intact)
    named = [said for said in progress.said if "is trained again" in said]
    lost = [shard for shard in shards if shard_file(folder, shard) in before]
    assert [said.split(" is trained")[0] for said in named] == [f"shard {c}" for c in lost]
    assert all(str(folder) in said and "\n" not in said for said in named)
    assert outcomes(folder) == outcomes(small.path)
    assert names_below(folder) == names_below(small.path)


@pytest.mark.parametrize("name", [name for name in DAMAGES if name.startswith("weights")])
def test_a_model_of_a_damaged_shard_is_refused_and_others_are_read(folder, name):
    shards, damage = DAMAGES[name]
    damage(folder)
    opened = load(folder)
    assert len(opened.metrics) == 10
    for shard in range(3):
        if shard in shards:
            with pytest.raises(UserError, match=f"shard {shard} of {folder} is damaged"):
                opened.model(shard * WIDTH)
        else:
            opened.model(shard * WIDTH)


def test_metrics_damaged_while_a_population_is_open_are_named(folder):
    opened = load(folder)
    shard_file(folder, 1).write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"000001\.parquet is damaged"):
        _ = opened.metrics
    with pytest.raises(UserError, match=r"000001\.parquet is damaged"):
        opened.model(5)


def test_no_flipped_bit_of_a_shards_metrics_goes_unnoticed_if_it_changes_a_number(folder):
    store, file = read_store(folder), shard_file(folder, 0)
    models, columns = store.in_shard(0), [DIVERGED, *METRICS, *curve_names()]
    intact, table = file.read_bytes(), store.shards.read(0, models, columns)
    noticed = 0
    for place in np.random.default_rng(0).integers(0, len(intact), size=100):
        flip(file, place)
        problem = store.shards.problem(0, models)
        noticed += problem is not None
        assert problem or store.shards.read(0, models, columns).to_json() == table.to_json(), place
        file.write_bytes(intact)
    assert noticed > 30
    assert store.shards.problem(0, models) is None


def test_arrays_that_cannot_be_used_are_named(folder):
    (folder / names.WEIGHTS / "embed.W_E/zarr.json").write_text("{}")
    with pytest.raises(UserError, match=rf"{folder / names.WEIGHTS}.*embed\.W_E"):
        train_population(RECIPE, SMALL, folder, resume=True)


def test_finished_shards_without_a_config_are_not_thrown_away(folder):
    (folder / names.CONFIG).unlink()
    before = names_below(folder)
    with pytest.raises(UserError, match=r"holds finished models, but no population\.json"):
        train_population(RECIPE, SMALL, folder, resume=True)
    assert names_below(folder) == before


# Interruptions


def assert_part(population, whole):
    """At least a shard is finished, as in the whole."""
    assert WIDTH <= len(population) < len(whole)
    assert population.metrics.equals(whole.metrics.loc[population.metrics.index])


@pytest.mark.parametrize("n_bytes", [50, 1000], ids=["for weights", "for metrics"])
def test_a_full_disk_loses_nothing_finished_and_leaves_no_half_file(
    small, population, tmp_path, full_disk, n_bytes
):
    with ExitStack() as stack:
        progress = Sayings(lambda: stack.enter_context(full_disk(n_bytes)))
        with pytest.raises(OSError, match="File too large") as error:
            population(SMALL, progress=progress)
    assert "\n" not in str(error.value)
    assert_part(load(tmp_path / "new"), small)
    assert not [name for name in names_below(tmp_path) if "partial" in name or "__lock" in name]
    left = population(SMALL, resume=True)
    assert outcomes(left.path) == outcomes(small.path)
    assert names_below(left.path) == names_below(small.path)


def test_a_disk_full_from_the_start_leaves_no_store(population, tmp_path, full_disk):
    with full_disk(100), pytest.raises((OSError, UserError), match="File too large"):
        population(SMALL)
    assert not (tmp_path / "new" / names.CONFIG).exists()
    assert len(population(SMALL)) == 10


def test_an_interruption_keeps_what_is_finished_and_says_how_to_go_on(small, population, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=f"--out {tmp_path / 'new'} --resume"):
        population(SMALL, progress=Sayings(interrupt))
    assert_part(load(tmp_path / "new"), small)
    n_finished = len(load(tmp_path / "new"))
    progress = Sayings()
    assert outcomes(population(SMALL, resume=True, progress=progress).path) == outcomes(small.path)
    assert f"{n_finished} models are finished already, {10 - n_finished} to go" in progress.said


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_that_python_drops_stops_the_training(
    small, population, tmp_path, drop_ctrl_c, monkeypatch
):
    def interrupted_wait(*args, **kwargs):
        drop_ctrl_c()
        return wait(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training_module, "wait", interrupted_wait)
        with pytest.raises(Interrupted, match="--resume"):
            population(SMALL)
    assert len(load(tmp_path / "new")) < len(small)
    assert outcomes(population(SMALL, resume=True).path) == outcomes(small.path)


# Numbers about all models


def test_success_is_counted_for_every_point(small):
    good = small.metrics.assign(holdout_accuracy=[1, np.nan, 0.5, np.nan, 1, *[np.nan] * 5])
    calm, hopeless = by_point(good, 1.0).to_dict("records")
    assert (calm["lr"], calm["models"], calm["holdout_perfect"], calm["diverged"]) == (
        0.01,
        5,
        2,
        0,
    )
    assert (hopeless["holdout_perfect"], hopeless["diverged"]) == (0, 5)
    assert by_point(good, 0.5)["holdout_perfect"].tolist() == [3, 0]
    assert calm["holdout_accuracy"] == pytest.approx((1 + 0.5 + 1) / 3)


def test_the_interval_of_a_rate_is_wilsons():
    assert interval(10, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)
    assert interval(0, 10)[0] == 0
    assert interval(10, 10)[1] == 1
