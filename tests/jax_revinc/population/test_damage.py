"""What a store holds is never lowered: what is wrong is refused before anything is touched, or set aside."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from populations import (
    HOPELESS,
    RECIPE,
    SMALL,
    WIDTH,
    assert_same_store,
    claimed,
    names_below,
    outcomes,
)

from jax_revinc import UserError
from jax_revinc.population import load, train_population
from jax_revinc.population import shards as shards_module
from jax_revinc.population import store as names
from jax_revinc.population import training as training_module
from jax_revinc.population.store import read_store
from jax_revinc.population.weight_arrays import WeightArrays
from revinc.engine import METRICS
from revinc.folders import set_aside
from revinc.parquet_tables import RECORD
from revinc.sweep import sweep


def content(folder):
    """Every file of a folder, by name."""
    return {
        str(file.relative_to(folder)): file.readlink() if file.is_symlink() else file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_symlink() or file.is_file()
    }


def resumed(folder, models=SMALL, **options):
    return train_population(RECIPE, models, folder, resume=True, **options)


def refused(folder, phrase, act=resumed):
    """That an act on a folder ends in a sentence with a phrase, and changes nothing."""
    before = content(folder)
    with pytest.raises(UserError, match=phrase) as refusal:
        act(folder)
    assert "\n" not in str(refusal.value)
    assert content(folder) == before


def edit(folder, section, field, value):
    """Edit a field of ``population.json`` by hand."""
    file = folder / names.CONFIG
    record = json.loads(file.read_text())
    record[section][field] = value
    file.write_text(json.dumps(record))


def metrics_file(folder, shard):
    return folder / names.METRICS / f"{shard:06d}.parquet"


def piece_file(folder, shard, name="embed.W_E"):
    return folder / names.WEIGHTS / name / f"c/{shard}/0/0"


def rerecord(file, change):
    """Write a shard's metrics again, with another record and rows."""
    table = pq.read_table(file)
    record = json.loads(table.schema.metadata[RECORD])
    rows = change(record, table) or table
    metadata = {**table.schema.metadata, RECORD: json.dumps(record).encode()}
    pq.write_table(rows.replace_schema_metadata(metadata), file)


def as_before(folder):
    """Make of a store one of an earlier version, whose shards don't say of what recipe they are but by its digest."""

    def forget(record, _):
        del record["config"], record["engine"]

    for file in (folder / names.METRICS).iterdir():
        rerecord(file, forget)


# What an edit or an older file must not do


def test_an_older_plan_is_refused_and_no_array_shrinks(folder):
    older = (folder / names.MODELS).read_bytes()
    resumed(folder, sweep(RECIPE, seeds=range(5, 8)))
    (folder / names.MODELS).write_bytes(older)
    refused(
        folder,
        r"models\.parquet lists the models of 3 shards, .*but the folder holds shard 3.*put the "
        "right one",
    )
    refused(folder, "models of 3 shards", lambda f: resumed(f, sweep(RECIPE, seeds=range(20, 30))))


def test_an_older_plan_is_refused_for_its_weights_alone(folder):
    older = (folder / names.MODELS).read_bytes()
    resumed(folder, sweep(RECIPE, seeds=range(5, 8)))
    (folder / names.MODELS).write_bytes(older)
    metrics_file(folder, 3).unlink()
    refused(folder, "models of 3 shards, numbered from 0, but the folder holds shard 3")


def test_arrays_never_shrink(folder):
    arrays, description = read_store(folder).arrays, folder / names.WEIGHTS / "embed.W_E/zarr.json"
    arrays.make_room(9)
    assert json.loads(description.read_text())["shape"] == [9 * WIDTH, 5, 4]
    arrays.make_room(1)
    assert json.loads(description.read_text())["shape"] == [9 * WIDTH, 5, 4]


EDITS = {
    "train": ("label_smoothing", 0.1, r"label_smoothing: 0\.0 there, not 0\.1"),
    "model": ("dtype", "float64", "dtype: float32 there, not float64"),
    "engine": ("width", "2", "width: 4 there, not 2"),
}


@pytest.mark.parametrize("section", EDITS)
def test_an_edited_config_is_refused_by_the_field_that_differs(folder, section):
    field, value, phrase = EDITS[section]
    edit(folder, section, field, value)
    refused(
        folder,
        rf"shard 0 of .* from another config than that in population\.json \({phrase}\)",
        lambda f: train_population(read_store(f).config, SMALL, f, resume=True, width=None),
    )
    refused(folder, phrase, lambda f: load(f).metrics)


def test_an_edited_number_of_steps_is_refused(folder):
    edit(folder, "train", "steps", 61)
    cfg = read_store(folder).config
    act = lambda f: train_population(cfg, SMALL, f, resume=True)  # noqa: E731
    refused(folder, "steps: 60 there, not 61", act)


def test_a_store_of_an_earlier_version_opens_and_goes_on(small, folder):
    as_before(folder)
    assert outcomes(folder) == outcomes(small.path)
    assert load(folder).best.equals(small.best)
    before = content(folder)
    resumed(folder)
    after = content(folder)
    assert {n: b for n, b in after.items() if "models" not in n} == {
        n: b for n, b in before.items() if "models" not in n
    }
    metrics_file(folder, 1).write_bytes(b"")
    assert outcomes(resumed(folder).path) == outcomes(small.path)


def test_an_edited_config_of_an_earlier_version_is_refused(folder):
    as_before(folder)
    edit(folder, "train", "label_smoothing", 0.1)
    act = lambda f: train_population(read_store(f).config, SMALL, f, resume=True)  # noqa: E731
    refused(
        folder, r"shard 0 of .* another config than that in population\.json; that file was", act
    )


def test_a_plan_of_other_models_is_refused_and_nothing_sound_is_trained_again(folder):
    file = folder / names.MODELS
    plan = pd.read_parquet(file)
    plan["init_seed"] += 100
    plan.to_parquet(file, index=False)
    refused(folder, r"shard 0 of .* is intact, but holds other models than models\.parquet")


def test_a_shard_whose_record_contradicts_itself_is_damaged(small, folder):
    rerecord(metrics_file(folder, 0), lambda record, _: record["config"]["train"].update(lr=0.5))
    assert "contradicts itself" in read_store(folder).shards.problem(0, SMALL.iloc[:4])
    assert outcomes(resumed(folder).path) == outcomes(small.path)


# What is damaged is set aside


def test_what_is_damaged_is_set_aside_and_never_removed(small, folder, monkeypatch):
    damaged, intact = piece_file(folder, 1), content(folder)
    damaged.write_bytes(b"precious")
    metrics = metrics_file(folder, 1).read_bytes()

    def assert_kept():
        aside = content(folder)
        assert aside["metrics/000001.parquet.damaged"] == metrics
        assert aside["weights/embed.W_E/c/1/0/0.damaged"] == b"precious"
        assert aside["weights/unembed.b_U/c/1/0.damaged"] == intact["weights/unembed.b_U/c/1/0"]

    def stopped(*_):
        assert not metrics_file(folder, 1).exists()
        assert_kept()
        raise OSError("stopped")

    monkeypatch.setattr(training_module, "train_shard", stopped)
    for _ in range(2):
        with pytest.raises(OSError, match="stopped"):
            resumed(folder)
    monkeypatch.undo()
    resumed(folder)
    assert_kept()
    assert_same_store(folder, small)


def test_what_is_damaged_again_is_set_aside_beside_the_first(small, folder):
    for garbage in (b"first", b"second", b"third"):
        metrics_file(folder, 1).write_bytes(garbage)
        resumed(folder)
    kept = content(folder)
    assert [kept[f"metrics/000001.parquet.damaged{n}"] for n in ("", ".2", ".3")] == [
        b"first",
        b"second",
        b"third",
    ]
    assert_same_store(folder, small)


def test_what_was_set_aside_halfway_is_still_damaged(small, folder, monkeypatch):
    """Whoever is killed while he sets a shard aside leaves nothing that is then overwritten."""
    piece_file(folder, 1).write_bytes(b"precious")
    before = content(folder)
    renamed = []

    def killed(file):
        if len(renamed) == 3:
            raise KeyboardInterrupt
        renamed.append(set_aside(file))

    monkeypatch.setattr(shards_module, "set_aside", killed)
    with pytest.raises(KeyboardInterrupt):
        resumed(folder)
    monkeypatch.undo()
    resumed(folder)
    kept = content(folder)
    of_shard = [name for name in before if "/c/1/" in name] + ["metrics/000001.parquet"]
    assert {name: kept[f"{name}.damaged"] for name in of_shard} == {
        name: before[name] for name in of_shard
    }
    assert_same_store(folder, small)


def test_nothing_is_set_aside_where_something_else_is_refused(folder):
    metrics_file(folder, 0).write_bytes(b"garbage")
    (folder / names.WEIGHTS / "embed.W_E/zarr.json").write_text("{}")
    refused(folder, r"embed\.W_E")


# Whose folder it is


def test_a_folder_whose_name_is_no_utf8_serves(small, folder, tmp_path):
    odd = folder.rename(tmp_path / "n\udcffx")
    assert resumed(odd, sweep(RECIPE, seeds=range(5, 6))).metrics.index[-1] == len(SMALL)
    assert outcomes(odd).items() >= outcomes(small.path).items()


def remnant(tmp_path):
    """A folder in which a process was killed before it wrote the config."""
    with claimed(tmp_path / "new", RECIPE, {"width": "4"}, SMALL, resume=False):
        pass
    (tmp_path / "new" / names.CONFIG).unlink()
    return tmp_path / "new"


def test_what_a_killed_process_left_is_cleared_by_name(tmp_path):
    new = remnant(tmp_path)
    (new / names.WEIGHTS / "embed.W_E" / ".zarr.json.0123456789abcdef.partial").write_text("{")
    (new / names.WEIGHTS / "of_another_recipe").mkdir()
    with claimed(new, RECIPE, {"width": "8"}, SMALL, resume=False) as store:
        assert store.width == 8
    assert sorted(file.name for file in (new / names.WEIGHTS).iterdir()) == sorted(
        ["zarr.json", *load(new).params([])]
    )


@pytest.mark.parametrize("name", ["metrics/thesis.tex", "metrics/notes/a.txt"])
def test_a_remnant_with_anything_else_in_it_is_left_alone(tmp_path, name):
    new = remnant(tmp_path)
    (new / name).parent.mkdir(exist_ok=True)
    (new / name).write_text("mine")
    act = lambda f: train_population(RECIPE, SMALL, f, width=WIDTH)  # noqa: E731
    refused(new, "belong to no population", act)


def test_weights_without_metrics_are_set_aside_and_never_removed(tmp_path, folder):
    weights = content(folder / names.WEIGHTS)
    shutil.rmtree(folder / names.METRICS)
    (folder / names.CONFIG).unlink()
    for aside in ("weights.damaged", "weights.damaged.2"):
        with claimed(folder, RECIPE, {"width": "4"}, SMALL, resume=False):
            pass
        assert content(folder / aside) == weights
        (folder / names.CONFIG).unlink()
        for name, bytes_ in weights.items():
            (folder / names.WEIGHTS / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / names.WEIGHTS / name).write_bytes(bytes_)


@pytest.mark.parametrize("name", ["metrics", "weights", "weights/embed.W_E", "weights/embed.W_E/c"])
def test_a_link_in_the_place_of_a_folder_is_not_followed(folder, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    refused(folder, "is a link", lambda f: resumed(f, sweep(RECIPE, seeds=range(5, 8))))


def test_leftovers_of_killed_writers_go_and_files_of_others_stay(small, folder):
    left = [
        "metrics/.000007.parquet.0123456789abcdef.partial",
        "metrics/000001.parquet.partial",
        ".models.parquet.0123456789abcdef.partial",
        "weights/embed.W_E/c/1/0/.0.0123456789abcdef.partial",
    ]
    (folder / "metrics/notes.txt").write_text("mine")
    for name in left:
        (folder / name).write_text("half")
    metrics_file(folder, 1).unlink()
    resumed(folder)
    assert sorted([*names_below(small.path), "metrics/notes.txt"]) == names_below(folder)


# What contradicts itself, or is some other thing


def replace_column(name, values):
    def change(_, table):
        column = table.schema.get_field_index(name)
        return table.set_column(column, name, values(table[name]))

    return lambda folder: rerecord(metrics_file(folder, 0), change)


def nested(depth):
    return "[" * depth + "]" * depth


def plan_with(**columns):
    def change(folder):
        table = pd.read_parquet(folder / names.MODELS).assign(**columns)
        table.to_parquet(folder / names.MODELS, index=False)

    return change


def huge(folder):
    """An honest description of a file that is not: 2**40 bytes, none of them on the disk."""
    os.truncate(piece_file(folder, 0), 2**40)


def fifo(file):
    file.unlink()
    os.mkfifo(file)


def socket_at(file):
    file.unlink()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(file))


ODD = {
    "no sections": lambda f: (f / names.CONFIG).write_text("[1]"),
    "deep config": lambda f: (f / names.CONFIG).write_text(nested(200_000)),
    "engine a list": lambda f: edit_whole(f, "engine", ["xla"]),
    "engine of numbers": lambda f: edit(f, "engine", "width", 4),
    "a width of digits elsewhere": lambda f: edit(f, "engine", "width", "٤"),
    "a huge width": lambda f: edit(f, "engine", "width", "9" * 400),
    "a signed width": lambda f: edit(f, "engine", "width", "+4"),
    "plan twice": plan_with(row=range(10), init_seed=0, data_seed=0, split_seed=0, lr=0.1),
    "plan out of order": plan_with(row=list(range(9, -1, -1))),
    "plan with a gap": plan_with(row=[*range(9), 10]),
    "plan far away": plan_with(row=[*range(9), 2**60]),
    "plan of negative rows": plan_with(row=range(-1, 9)),
    "plan of rows in words": plan_with(row=list("0123456789")),
    "plan of NaN": plan_with(lr=np.nan),
    "plan of infinite rates": plan_with(weight_decay=np.inf),
    "plan of another split": plan_with(split="sufix"),
    "plan of seeds that are none": plan_with(init_seed=range(-1, 9)),
    "plan of large seeds": plan_with(data_seed=[2**32, *range(9)]),
    "plan of fractions": plan_with(data_seed=[0.5 + i for i in range(10)]),
    "plan a folder": lambda f: ((f / names.MODELS).unlink(), (f / names.MODELS).mkdir()),
    "plan a pipe": lambda f: fifo(f / names.MODELS),
    "plan a socket": lambda f: socket_at(f / names.MODELS),
    "NaN metrics": replace_column("train_loss", lambda c: pa.array([np.nan] * len(c))),
    "words as metrics": replace_column("train_loss", lambda c: pa.array(["a"] * len(c))),
    "absent models": replace_column("model", lambda c: pa.array([None] * len(c), pa.int64())),
    "ragged curves": replace_column(
        "train_loss_curve", lambda c: pa.array([[0.0] * (i + 1) for i in range(len(c))])
    ),
    "short curves": replace_column("train_loss_curve", lambda c: pa.array([[0.0]] * len(c))),
    "absent curves": replace_column(
        "train_loss_curve", lambda c: pa.array([None] * len(c), pa.list_(pa.float64()))
    ),
    "an odd divergence": replace_column("diverged_at", lambda c: pa.array([-5] * len(c))),
    "a late divergence": replace_column("diverged_at", lambda c: pa.array([2**40] * len(c))),
    "no rows": lambda f: rerecord(metrics_file(f, 0), lambda _, table: table.slice(0, 0)),
    "a record of words": lambda f: pq.write_table(
        pq.read_table(metrics_file(f, 0)).replace_schema_metadata({RECORD: b'"a"'}),
        metrics_file(f, 0),
    ),
    "a deep record": lambda f: pq.write_table(
        pq.read_table(metrics_file(f, 0)).replace_schema_metadata({RECORD: nested(200_000)}),
        metrics_file(f, 0),
    ),
    "metrics a pipe": lambda f: fifo(metrics_file(f, 0)),
    "metrics a folder": lambda f: (metrics_file(f, 0).unlink(), metrics_file(f, 0).mkdir()),
    "a piece of 2**40 bytes": huge,
    "a piece that is a pipe": lambda f: fifo(piece_file(f, 0)),
    "a piece that is a folder": lambda f: (piece_file(f, 0).unlink(), piece_file(f, 0).mkdir()),
    "an absurd array": lambda f: edit_array(f, shape=[10**30, 5, 4]),
    "absurd shards": lambda f: edit_array(
        f, chunk_grid={"name": "regular", "configuration": {"chunk_shape": [10**12, 5, 4]}}
    ),
    "an array of other numbers": lambda f: edit_array(f, data_type="float64"),
    "a deep array": lambda f: (f / names.WEIGHTS / "embed.W_E/zarr.json").write_text(
        nested(99_999)
    ),
    "an array a list": lambda f: (f / names.WEIGHTS / "embed.W_E/zarr.json").write_text("[]"),
    "an array a pipe": lambda f: fifo(f / names.WEIGHTS / "embed.W_E/zarr.json"),
}


def edit_whole(folder, section, value):
    record = json.loads((folder / names.CONFIG).read_text())
    (folder / names.CONFIG).write_text(json.dumps({**record, section: value}))


def edit_array(folder, **changes):
    file = folder / names.WEIGHTS / "embed.W_E/zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("damage", ODD.values(), ids=ODD)
def test_whatever_a_store_holds_is_a_sentence_or_right(small, folder, damage):
    damage(folder)
    for read in (lambda p: p.metrics, lambda p: p.curves("train_loss"), lambda p: p.model(8)):
        found = outcome_of(lambda read=read: read(load(folder)))
        assert is_one_sentence(found, folder) or str(found) == str(read(small))
    before = set(names_below(folder))
    found = outcome_of(lambda: outcomes(resumed(folder).path))
    if is_one_sentence(found, folder):
        assert set(names_below(folder)) == before
    else:
        assert found == outcomes(small.path)


def outcome_of(act):
    """What a function returns, or the UserError that it ends in."""
    try:
        return act()
    except UserError as error:
        return error


def is_one_sentence(found, folder):
    """Whether it is an error that says in a line which file it is about."""
    return isinstance(found, UserError) and "\n" not in str(found) and str(folder) in str(found)


def test_weights_that_are_nan_though_their_model_did_not_diverge_are_said(folder):
    file = piece_file(folder, 0)
    weights = np.fromfile(file, "<f4").reshape(WIDTH, -1)
    weights[2, 3] = np.nan
    file.write_bytes(weights.tobytes())
    pieces = read_store(folder).arrays.read(0)
    rerecord(metrics_file(folder, 0), lambda r, _: r.update(weights=shards_module.digest(pieces)))
    with pytest.raises(
        UserError, match="the weights of model 2 are NaN or infinite, though it did"
    ):
        load(folder).model(2)


def test_a_model_whose_weights_alone_break_has_diverged(monkeypatch, tmp_path):
    engine = training_module.JaxPopulation
    weights_of = engine.weights

    def broken(self, state):
        weights = {name: np.array(w) for name, w in weights_of(self, state).items()}
        weights["unembed.b_U"][1] = np.inf
        return weights

    monkeypatch.setattr(engine, "weights", broken)
    trained = train_population(RECIPE, SMALL.iloc[[0, 2, 4]], tmp_path / "new", width=WIDTH)
    assert trained.metrics["diverged_at"].tolist() == [pd.NA, RECIPE.steps, pd.NA]
    assert np.isnan(trained.metrics.loc[1, list(METRICS)].astype(float)).all()


# What a fault in the code would not be noticed by else


@pytest.mark.parametrize("model", range(WIDTH))
def test_the_digest_of_a_shard_is_of_all_its_models(folder, model):
    file = piece_file(folder, 0)
    damaged = bytearray(file.read_bytes())
    damaged[model * len(damaged) // WIDTH + 9] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(UserError, match="its models' weights are not those that were written"):
        load(folder).model(0)


def test_a_shard_of_another_recipe_with_the_same_models_is_refused(folder, tmp_path):
    cfg = dataclasses.replace(RECIPE, batch_size=8)
    other = train_population(cfg, SMALL, tmp_path / "other", width=WIDTH)
    for name in content(other.path):
        if name.startswith("metrics/000000") or "/c/0/" in name:
            shutil.copy(other.path / name, folder / name)
    refused(
        folder,
        r"shard 0 .* another config than that in population\.json "
        r"\(batch_size: 8 there, not 16\)",
    )
    refused(folder, "batch_size: 8 there", lambda f: load(f).metrics)
    refused(folder, "batch_size: 8 there", lambda f: load(f).model(0))


def test_weights_are_there_before_the_metrics_that_seal_them(folder, monkeypatch):
    metrics_file(folder, 1).unlink()
    for file in (folder / names.WEIGHTS).glob("*/c/1"):
        shutil.rmtree(file)

    def failing(*_):
        assert not metrics_file(folder, 1).exists()
        raise OSError("full")

    monkeypatch.setattr(WeightArrays, "write", failing)
    with pytest.raises(OSError, match="full"):
        resumed(folder)
    assert not metrics_file(folder, 1).exists()
    assert len(load(folder)) == 6


def test_a_shard_that_keeps_an_accuracy_where_its_model_diverged_is_damaged(small, folder):
    def kept(_, table):
        column = table.schema.get_field_index("holdout_accuracy")
        return table.set_column(column, "holdout_accuracy", pa.array([0.5] * len(table)))

    rerecord(metrics_file(folder, 0), kept)
    assert small.metrics["lr"].tolist()[:2] == [1e-2, HOPELESS]
    with pytest.raises(
        UserError,
        match="its column holdout_accuracy lacks a number before a model diverged, or has one after",
    ):
        _ = load(folder).metrics


def test_no_accuracy_is_kept_where_a_model_diverged():
    evaluations = [{name: np.array([0.5, 0.5]) for name in METRICS} for _ in range(4)]
    models = sweep(RECIPE, seeds=range(2))
    measured = training_module.metrics_table(RECIPE, models, evaluations, np.array([30, 61]))
    for metric in METRICS:
        assert np.isnan(measured.loc[0, metric])
        assert measured.loc[1, metric] == 0.5
        assert np.isnan(measured.loc[0, f"{metric}_curve"]).tolist() == [False, False, True, True]
