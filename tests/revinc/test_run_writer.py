from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest

from revinc import TrainConfig, UserError, run_request, run_writer, runs
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


PARTIAL = "0123456789abcdef.partial"
REMNANTS = {
    "a lock": [".lock"],
    "a folder": [".lock", "snapshots/"],
    **{
        f"{moment} and {sums}": [".lock", *(name.replace("SUMS", sums) for name in names)]
        for sums in ("checksums.jsonl", "checksums.json")  # this version's, an earlier one's
        for moment, names in {
            "half the checksums": ["snapshots/", f".SUMS.{PARTIAL}"],
            "checksums": ["snapshots/", "SUMS"],
            "half a snapshot": ["SUMS", f"snapshots/.000000.safetensors.{PARTIAL}"],
            "a snapshot": ["SUMS", "snapshots/000000.safetensors"],
            "half a config": ["SUMS", "snapshots/000000.safetensors", f".config.json.{PARTIAL}"],
        }.items()
    },
    "half a config of an earlier version": [
        ".lock",
        "snapshots/000000.safetensors",
        "config.json.partial",
    ],
}


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"resume": True}], ids=str)
@pytest.mark.parametrize("names", REMNANTS.values(), ids=REMNANTS)
def test_what_a_run_killed_before_its_config_left_is_used_again(
    open_writer, tmp_path, names, flags
):
    make_files(tmp_path / "run", names)
    with open_writer(**flags) as writer:
        assert files_below(writer.path).keys() == {
            ".lock",
            "checksums.jsonl",
            "config.json",
            "snapshots/000000.safetensors",
        }


def make_files(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).mkdir() if name.endswith("/") else (folder / name).write_text("half")


def test_every_moment_of_a_beginning_can_begin_again(open_writer, tmp_path, monkeypatch):
    """Killed before each of its writes in turn, as `kill -9` would."""
    from revinc import checksums

    def dies(*_):
        raise SystemExit("killed")

    moments = [
        (checksums, "write_bytes"),
        (run_writer, "write_bytes"),
        (run_writer, "write_record"),
    ]
    for folder, (module, name) in zip("abc", moments, strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, dies)
            with pytest.raises(SystemExit):
                open_writer(folder)
        with open_writer(folder):
            assert not Run.load(tmp_path / folder).finished


ORPHANS = {
    "finished": [],
    "no weights": ["weights.safetensors"],
    "snapshots alone": ["weights.safetensors", "metrics.parquet", "losses.parquet"],
    "half a config": ["weights.safetensors"],
}


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"resume": True}], ids=str)
@pytest.mark.parametrize("gone", ORPHANS.values(), ids=ORPHANS)
def test_a_run_that_lost_its_config_is_left_as_it_is(
    train, open_writer, tmp_path, gone, flags, refuses_in_one_line
):
    train("run")
    (tmp_path / "run" / runs.CONFIG).unlink()
    (tmp_path / "run" / f".config.json.{PARTIAL}").write_text("{")
    for name in gone:
        (tmp_path / "run" / name).unlink()
    before = files_below(tmp_path)
    with refuses_in_one_line(UserError, tmp_path / "run", "no config.json", "--out"):
        open_writer(**flags)
    assert files_below(tmp_path) == before


def test_a_checkpoint_without_a_config_is_left_as_it_is(open_writer, tmp_path):
    with open_writer() as writer:
        writer.save_checkpoint(Checkpoint(0, {}))
    (tmp_path / "run" / runs.CONFIG).unlink()
    with pytest.raises(UserError, match=r"holds checkpoint\.safetensors but no config\.json"):
        open_writer(resume=True)


NOT_OURS = {
    "in snapshots": "snapshots/thesis.txt",
    "a snapshot of another name": "snapshots/7.safetensors",
    "in tensorboard": "tensorboard/keys.txt",
}


@pytest.mark.parametrize("name", NOT_OURS.values(), ids=NOT_OURS)
def test_overwrite_refuses_what_lies_where_only_runs_write(
    train, open_writer, tmp_path, name, refuses_in_one_line
):
    train("run")
    file = tmp_path / "run" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    before = files_below(tmp_path)
    with refuses_in_one_line(UserError, file.parent, file.name, "move"):
        open_writer(overwrite=True)
    assert files_below(tmp_path) == before


def test_what_was_set_aside_in_a_run_is_nobodys_to_delete(train, open_writer, cfg, tmp_path):
    train("run")
    aside = [
        "snapshots/000004.safetensors.damaged",
        "checkpoint.safetensors.damaged",
        "tensorboard/events.out.tfevents.1.host.2.damaged.2",
    ]
    for name in aside:
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text("mine")
    with open_writer(config=dataclasses.replace(cfg, lr=0.5), overwrite=True) as writer:
        assert Run.load(writer.path).snapshot_steps == [0]
    assert [(tmp_path / "run" / name).read_text() for name in aside] == ["mine"] * 3


RECORDS_OF_OTHERS = {
    "another program's": {"format_version": "7.2", "program": "another"},
    "a later version's": {"format_version": 99},
    "true": {"format_version": True},
    "a version alone": {"format_version": 1},
    "no sections": {"format_version": 1, "engine": {"name": "x"}, "versions": {}},
    "other sections": {
        "format_version": 1,
        "engine": {},
        "versions": {},
        "model": {"layers": 3},
        "task": {},
        "train": {},
    },
}


@pytest.mark.parametrize("record", RECORDS_OF_OTHERS.values(), ids=RECORDS_OF_OTHERS)
def test_overwrite_replaces_nothing_but_a_run(open_writer, tmp_path, record, refuses_in_one_line):
    names = ["snapshots/000000.safetensors", "snapshots/thesis.txt", "wandb/keys.txt"]
    make_files(tmp_path / "run", [*names, "report.html", "weights.safetensors", "notes.md"])
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    before = files_below(tmp_path)
    with refuses_in_one_line(UserError, tmp_path / "run" / "config.json"):
        open_writer(overwrite=True)
    assert files_below(tmp_path) == before


def test_overwrite_keeps_what_weights_and_biases_keeps(train, open_writer, tmp_path):
    train("run")
    kept = ["wandb/run-1/logs/debug.log", "wandb/offline-run-2/run-2.wandb", "wandb/keys.txt"]
    make_files(tmp_path / "run", [*kept, "wandb/wandb-resume.json"])
    with open_writer(overwrite=True) as writer:
        assert {name for name in files_below(writer.path) if "wandb" in name} == set(kept)


@pytest.mark.parametrize("folder", ["snapshots", "tensorboard"])
@pytest.mark.parametrize("flags", [{"overwrite": True}, {"resume": True}], ids=str)
def test_a_link_in_the_place_of_a_folder_is_refused(
    train, tmp_path, folder, flags, refuses_in_one_line
):
    train("run")
    (tmp_path / "run" / runs.WEIGHTS).unlink()
    ours, elsewhere = tmp_path / "run" / folder, tmp_path / "elsewhere"
    ours.rename(elsewhere) if ours.exists() else elsewhere.mkdir()
    ours.symlink_to(elsewhere)
    before = files_below(elsewhere)
    log = ["tensorboard"] if folder == "tensorboard" else []
    pytest.importorskip("tensorboardX", reason="the extra tracking is not installed")
    with refuses_in_one_line(UserError, ours, "is a link"):
        train("run", log=log, **flags)
    assert files_below(elsewhere) == before


def test_a_lock_that_is_a_link_is_refused(open_writer, tmp_path, refuses_in_one_line):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with refuses_in_one_line(UserError, ".lock", "is a link"):
        open_writer()
    assert (tmp_path / "precious").read_text() == "mine"


def test_an_overwrite_that_is_cut_short_may_be_repeated(train, open_writer, tmp_path, monkeypatch):
    train("run")
    unlink = type(tmp_path).unlink

    def dies(path, *rest, **options):
        unlink(path, *rest, **options)
        raise SystemExit("killed")

    n_files = len(files_below(tmp_path))
    for _ in run_request.replaced_files(tmp_path / "run"):
        with monkeypatch.context() as patch:
            patch.setattr(type(tmp_path), "unlink", dies)
            with pytest.raises(SystemExit):
                open_writer(overwrite=True)
        n_files -= 1
        assert len(files_below(tmp_path)) == n_files
    with open_writer(overwrite=True) as writer:
        assert Run.load(writer.path).snapshot_steps == [0]


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
        with refuses_in_one_line(UserError, runs.CHECKPOINT, "is not a checkpoint"):
            writer.load_checkpoint()


def test_a_full_disk_leaves_the_old_checkpoint_and_no_half_file(open_writer, full_disk):
    with open_writer() as writer:
        writer.save_checkpoint(Checkpoint(1, {"x": np.zeros(10)}, History((np.zeros(1),))))
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
        writer.finish(weights, History().with_losses(np.full(60, 0.5)))
        run = Run.load(writer.path)
    assert run.finished
    assert run.losses["loss"].tolist() == [0.5] * 60
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
        ours = [
            f".weights.safetensors.{PARTIAL}",
            "weights.safetensors.partial",  # an earlier version's
            f".checksums.json.{PARTIAL}",
            f".checksums.jsonl.{PARTIAL}",
            f"snapshots/.000009.safetensors.{PARTIAL}",
            "snapshots/000009.safetensors.partial",
        ]
        # A report is written without the lock: its writer may be alive.
        others = [f".report.html.{PARTIAL}", f".notes.{PARTIAL}", "snapshots/9.partial"]
        make_files(writer.path, [*ours, *others])
    with open_writer(resume=True):
        there = files_below(writer.path)
        assert there["notes/mine.partial"] == b"mine"
        assert there.keys() >= set(others)
        assert not there.keys() & set(ours)


def test_a_run_of_another_format_version_is_not_replaced(open_writer):
    with open_writer() as writer:
        file = writer.path / runs.CONFIG
        record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"format_version": 99}))
    before = files_below(writer.path)
    for use in (lambda: Run.load(writer.path), lambda: open_writer(overwrite=True)):
        with pytest.raises(UserError, match="format version 99"):
            use()
    assert files_below(writer.path) == before


def test_a_checkpoint_of_another_run_is_refused(open_writer, cfg, refuses_in_one_line):
    with open_writer("other", config=dataclasses.replace(cfg, init_seed=1)) as other:
        other.save_checkpoint(Checkpoint(0, {"count": np.array([1.0])}))
    with open_writer() as writer:
        file = writer.path / runs.CHECKPOINT
        (other.path / runs.CHECKPOINT).rename(file)
        with refuses_in_one_line(UserError, file, "another run's", "move it away"):
            writer.load_checkpoint()
        assert file.exists()


FIRST = {"count": np.array(0), "w": np.zeros((2, 3))}


@pytest.mark.parametrize(
    "later",
    [{"count": np.array(0)}, FIRST | {"w": np.zeros((3, 2))}, FIRST | {"count": np.array(0.0)}],
    ids=["missing", "shape", "type"],
)
def test_a_checkpoint_of_other_shapes_than_the_engines_is_refused(
    open_writer, later, refuses_in_one_line
):
    with open_writer() as writer:
        writer.save_checkpoint(Checkpoint(0, FIRST))
        assert writer.load_checkpoint(FIRST)
        writer.save_checkpoint(Checkpoint(0, later))
        with refuses_in_one_line(UserError, runs.CHECKPOINT, "is not a checkpoint of this run"):
            writer.load_checkpoint(FIRST)


def test_a_checkpoint_from_beyond_the_last_step_is_refused(open_writer, cfg):
    with open_writer() as writer:
        beyond = cfg.steps + 1
        writer.save_checkpoint(Checkpoint(beyond, {}, History((np.zeros(beyond),))))
        with pytest.raises(UserError, match=rf"step {beyond}, after the run's last step"):
            writer.load_checkpoint()


def test_initial_weights_that_are_not_finite_are_refused(
    open_writer, weights, tmp_path, refuses_in_one_line
):
    weights["unembed.W_U"][0, :3] = [np.nan, np.inf, -np.inf]
    with refuses_in_one_line(UserError, "init", "unembed.W_U holds 3 values that are NaN"):
        open_writer(init=weights)
    assert not (tmp_path / "run" / runs.CONFIG).exists()


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


def test_a_run_that_would_see_its_answers_is_not_begun(train, tmp_path):
    config = TrainConfig(model=TrainConfig().model.replace(attention_dir="bidirectional"), steps=60)
    with pytest.raises(UserError, match="attention_dir='bidirectional' lets the model see"):
        train("run", config=config)
    assert not (tmp_path / "run").exists()
