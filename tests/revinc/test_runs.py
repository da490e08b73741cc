from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from revinc import UserError, runs
from revinc.runs import Run


@pytest.fixture
def run_folder(short_run, tmp_path):
    """A copy of a finished run, to damage."""
    return shutil.copytree(short_run.path, tmp_path / "run")


def edit_config(folder, edit):
    file = folder / runs.CONFIG
    record = json.loads(file.read_text())
    edit(record)
    file.write_text(json.dumps(record))


def test_a_finished_run_says_what_it_was(short_run):
    run = Run.load(short_run.path)
    assert run.finished
    assert run.config.steps == 300
    assert run.engine["name"] == "xla"
    assert {"numpy", "jax", "flax", "optax", "jax-revinc"} <= run.versions.keys()


def test_the_tables_of_a_finished_run(short_run):
    run = Run.load(str(short_run.path))
    assert run.metrics["step"].tolist() == [0, 100, 200, 300]
    assert run.losses["step"].tolist() == list(range(300))
    assert run.metrics[["train_accuracy", "holdout_accuracy"]].stack().between(0, 1).all()


def test_the_snapshots_are_the_first_the_last_and_those_asked_for(short_run):
    run = Run.load(short_run.path)
    assert run.snapshot_steps == [0, 150, 300]
    last, final = run.state_dict(300), run.state_dict()
    assert all(np.array_equal(last[name], final[name]) for name in final)
    with pytest.raises(UserError, match=r"no snapshot of step 7 \(kept: 0, 150, 300\)"):
        run.state_dict(7)


def test_an_unfinished_run_opens_but_has_no_results(run_folder):
    (run_folder / runs.WEIGHTS).unlink()
    run = Run.load(run_folder)
    assert not run.finished
    for read in (run.state_dict, lambda: run.metrics, lambda: run.losses):
        with pytest.raises(UserError, match="not finished"):
            read()
    assert run.state_dict(0).keys() == run.state_dict(150).keys()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"text"', "5", "null", "{}", '{"format_version": 1}', "\x00\xff"],
)
def test_a_damaged_config_is_named(run_folder, text):
    (run_folder / runs.CONFIG).write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json"):
        Run.load(run_folder)


@pytest.mark.parametrize("key", ["engine", "versions", "model", "task", "train"])
def test_a_config_without_one_of_its_parts_is_refused(run_folder, key):
    edit_config(run_folder, lambda record: record.pop(key))
    with pytest.raises(UserError, match=key):
        Run.load(run_folder)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_refused(run_folder, version):
    edit_config(run_folder, lambda record: record.update(format_version=version))
    with pytest.raises(UserError, match=f"format version {version}"):
        Run.load(run_folder)


def test_a_config_with_an_impossible_value_is_refused(run_folder):
    edit_config(run_folder, lambda record: record["train"].update(lr=-1))
    with pytest.raises(UserError, match="lr must be"):
        Run.load(run_folder)


@pytest.mark.parametrize("folder", ["nowhere", "empty", "file"])
def test_what_is_no_run_is_named(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"{folder} is no run folder"):
        Run.load(tmp_path / folder)


@pytest.mark.parametrize("name", [runs.METRICS, runs.LOSSES])
@pytest.mark.parametrize(
    "damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"PAR1")]
)
def test_a_damaged_table_is_named(run_folder, name, damage):
    damage(run_folder / name)
    table = {runs.METRICS: "metrics", runs.LOSSES: "losses"}[name]
    with pytest.raises(UserError, match=name):
        getattr(Run.load(run_folder), table)


def test_damaged_weights_are_named(run_folder):
    file = run_folder / runs.WEIGHTS
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"weights\.safetensors.*truncated"):
        Run.load(run_folder).state_dict()
