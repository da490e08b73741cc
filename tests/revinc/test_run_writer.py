from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest

from revinc import UserError, runs
from revinc.checkpoint import Checkpoint, History
from revinc.runs import Run

from .conftest import AddingEngine


def files_below(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_new_run_holds_its_config_and_its_first_weights(open_writer, cfg, weights):
    with open_writer() as writer:
        run = Run.load(writer.path)
    assert run.config == cfg
    assert run.engine == {"name": "adding", "platform": "none"}
    assert not run.finished
    assert run.snapshot_steps == [0]
    first = run.state_dict(0)
    assert all(np.array_equal(first[name], weights[name]) for name in weights)


def test_folders_above_are_created(open_writer, tmp_path):
    with open_writer("a/b/c"):
        assert Run.load(tmp_path / "a/b/c")


def test_a_run_is_not_replaced_unasked(open_writer, tmp_path, refuses_in_one_line):
    open_writer().__exit__(None, None, None)
    before = files_below(tmp_path)
    with refuses_in_one_line(UserError, tmp_path / "run", "--resume", "--overwrite"):
        open_writer()
    assert files_below(tmp_path) == before


def test_overwrite_replaces_a_run_and_keeps_other_files(train, open_writer, cfg, tmp_path):
    train("run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    other = dataclasses.replace(cfg, lr=0.5)
    with open_writer(config=other, overwrite=True) as writer:
        run = Run.load(writer.path)
    assert run.config == other
    assert not run.finished
    assert run.snapshot_steps == [0]
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


FOREIGN_FOLDERS = {
    "a text": {"thesis.tex": "years of work"},
    "another program's config": {"config.json": '{"epochs": 3}'},
    "another program's list": {"config.json": "[]"},
    "a config that is no JSON": {"config.json": "epochs: 3"},
    "weights alone": {"weights.safetensors": "downloaded"},
    "tables alone": {"metrics.parquet": "of another project"},
    "pictures in a folder of a common name": {"snapshots/holiday.png": "sea"},
    "a report": {"report.html": "<p>mine</p>"},
}


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"resume": True}], ids=str)
@pytest.mark.parametrize("files", FOREIGN_FOLDERS.values(), ids=FOREIGN_FOLDERS)
def test_a_folder_that_is_no_run_is_left_as_it_is(open_writer, tmp_path, files, flags):
    for name, text in files.items():
        file = tmp_path / "run" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    before = files_below(tmp_path)
    with pytest.raises(UserError, match="run"):
        open_writer(**flags)
    assert files_below(tmp_path).items() >= before.items()


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"resume": True}], ids=str)
def test_a_file_is_no_run_folder(open_writer, tmp_path, flags, refuses_in_one_line):
    (tmp_path / "run").write_text("mine")
    with refuses_in_one_line(UserError, tmp_path / "run", "is a file"):
        open_writer(**flags)
    assert (tmp_path / "run").read_text() == "mine"


def test_an_empty_folder_may_be_used(open_writer, tmp_path):
    (tmp_path / "run").mkdir()
    with open_writer():
        pass


def test_what_a_run_killed_before_its_config_left_is_used_again(open_writer, tmp_path):
    with open_writer() as writer:
        (writer.path / runs.CONFIG).rename(writer.path / (runs.CONFIG + ".partial"))
    with open_writer():
        assert sorted(f.name for f in writer.path.iterdir()) == [
            ".lock",
            "config.json",
            "snapshots",
        ]


def test_resume_and_overwrite_exclude_each_other(open_writer, tmp_path):
    with pytest.raises(UserError, match="exclude"):
        open_writer(resume=True, overwrite=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [{"resume": True}, {"overwrite": True}, {}], ids=str)
def test_a_second_writer_is_refused_while_the_first_writes(open_writer, tmp_path, flags):
    with open_writer() as writer:
        before = files_below(writer.path)
        with pytest.raises(UserError, match="run"):
            open_writer(**flags)
        assert files_below(writer.path) == before
    with open_writer(resume=True):
        pass


def test_the_lock_is_free_again_after_a_refusal(open_writer, cfg):
    open_writer().__exit__(None, None, None)
    with pytest.raises(UserError) as refusal:
        open_writer(config=dataclasses.replace(cfg, lr=1.0), resume=True)
    with open_writer(resume=True):
        # Held until here, so that it was not the garbage collector that freed the lock.
        assert "lr" in str(refusal.value)


def test_resume_with_another_config_names_fields_and_values(open_writer, cfg, refuses_in_one_line):
    open_writer().__exit__(None, None, None)
    other = dataclasses.replace(cfg, lr=0.5, steps=70, model=cfg.model.replace(d_mlp=8))
    with refuses_in_one_line(
        UserError,
        "lr: 0.01 here, 0.5 there",
        "steps: 60 here, 70 there",
        "d_mlp: 4 here, 8 there",
    ):
        open_writer(config=other, resume=True)


def test_resume_under_another_engine_is_refused(open_writer, refuses_in_one_line):
    open_writer().__exit__(None, None, None)
    other = {"name": "adding", "platform": "gpu"}
    with refuses_in_one_line(UserError, "can't be resumed", AddingEngine.identity, other):
        open_writer(engine=other, resume=True)


def test_resume_of_nothing_begins_a_run(open_writer):
    with open_writer(resume=True) as writer:
        assert writer.load_checkpoint() is None
        assert Run.load(writer.path).snapshot_steps == [0]


@pytest.mark.parametrize("n_bytes", [0, 1, 7, 100, -1])
def test_a_truncated_checkpoint_is_named(open_writer, n_bytes, refuses_in_one_line):
    with open_writer() as writer:
        writer.save_checkpoint(Checkpoint(0, {"count": np.array([1.0])}))
        file = writer.path / runs.CHECKPOINT
        file.write_bytes(file.read_bytes()[:n_bytes])
        with refuses_in_one_line(UserError, file):
            writer.load_checkpoint()


def test_weights_are_no_checkpoint(open_writer, refuses_in_one_line):
    with open_writer() as writer:
        os.link(runs.snapshot_path(writer.path, 0), writer.path / runs.CHECKPOINT)
        with refuses_in_one_line(UserError, runs.CHECKPOINT, "no checkpoint"):
            writer.load_checkpoint()


def test_a_full_disk_leaves_the_old_checkpoint_and_no_half_file(open_writer, full_disk):
    with open_writer() as writer:
        writer.save_checkpoint(Checkpoint(1, {"x": np.zeros(10)}))
        before = files_below(writer.path)
        with full_disk(n_bytes=300), pytest.raises(OSError, match="File too large"):
            writer.save_checkpoint(Checkpoint(2, {"x": np.zeros(1000)}))
        with full_disk(n_bytes=300), pytest.raises(OSError, match="File too large"):
            writer.save_snapshot(10, {"x": np.zeros(1000)})
        assert files_below(writer.path) == before
        assert writer.load_checkpoint().step == 1


def test_a_disk_full_from_the_start_leaves_no_run(open_writer, tmp_path, full_disk):
    with full_disk(n_bytes=1000), pytest.raises(OSError, match="File too large"):
        open_writer()
    assert not (tmp_path / "run" / runs.CONFIG).exists()
    assert not list((tmp_path / "run").rglob("*.partial"))
    with open_writer():
        pass


def test_finishing_leaves_no_checkpoint(open_writer, weights):
    with open_writer() as writer:
        writer.save_checkpoint(Checkpoint(0, {"x": np.zeros(1)}))
        writer.finish(weights, History().with_losses(np.array([0.5])))
        run = Run.load(writer.path)
    assert run.finished
    assert run.losses["loss"].tolist() == [0.5]
    assert not (run.path / runs.CHECKPOINT).exists()


def test_the_config_on_disk_is_flat_readable_json(open_writer, cfg):
    with open_writer() as writer:
        record = json.loads((writer.path / runs.CONFIG).read_text())
    assert record["format_version"] == 1
    assert record["model"]["d_model"] == 4
    assert record["task"]["name"] == "reverse_increment"
    assert record["train"]["snapshots"] == [10, 40]


def test_a_run_that_another_process_finishes_meanwhile_is_not_replaced(
    open_writer, train, tmp_path, monkeypatch
):
    """The other process comes between our look at the folder and our lock on it."""
    from revinc import run_writer

    make_folder = run_writer.make_folder

    def look_and_be_overtaken(path, *rest):
        make_folder(path, *rest)
        monkeypatch.undo()
        train("run")

    monkeypatch.setattr(run_writer, "make_folder", look_and_be_overtaken)
    with pytest.raises(UserError, match="already holds a run"):
        open_writer()
    assert Run.load(tmp_path / "run").finished


def test_a_resume_deletes_no_partial_file_but_its_own(open_writer):
    with open_writer() as writer:
        theirs = writer.path / "notes" / "mine.partial"
        theirs.parent.mkdir()
        theirs.write_text("mine")
        ours = [writer.path / "weights.safetensors.partial", writer.path / "snapshots/9.partial"]
        for file in ours:
            file.write_text("half")
    with open_writer(resume=True):
        assert theirs.read_text() == "mine"
        assert not any(file.exists() for file in ours)


def test_overwrite_replaces_a_run_of_another_format_version(open_writer):
    with open_writer() as writer:
        file = writer.path / runs.CONFIG
        record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"format_version": 99}))
    with pytest.raises(UserError, match="format version 99"):
        Run.load(writer.path)
    with open_writer(overwrite=True):
        assert Run.load(writer.path)


def test_given_initial_weights_are_recorded_and_a_resume_takes_no_others(open_writer, weights):
    given = {name: weight + 1 for name, weight in weights.items()}
    with open_writer(init=given) as writer:
        record = json.loads((writer.path / runs.CONFIG).read_text())
        first = Run.load(writer.path).state_dict(0)
    assert record["initial_weights"] == "given"
    assert all(np.array_equal(first[name], given[name]) for name in given)
    with open_writer(init=given, resume=True):
        pass
    with pytest.raises(UserError, match="other initial weights"):
        open_writer(init=weights, resume=True)
