"""What a run measures is in its logs, every point once, however often it was interrupted."""

from __future__ import annotations

import dataclasses
import struct
import sys
import types

import pandas as pd
import pytest

from revinc import UserError, runs, trainer
from revinc.engine import METRICS
from revinc.run_writer import RunWriter
from revinc.trainer import Diverged, Interrupted

from .conftest import AddingEngine, Stopping


def expected(run, cfg):
    """Every value that a log of a finished run holds, by its name and step."""
    points = {
        (metric, int(row["step"])): row[metric]
        for _, row in run.metrics.iterrows()
        for metric in METRICS
    }
    losses = {("loss", int(row["step"]) + 1): row["loss"] for _, row in run.losses.iterrows()}
    rates = {("lr", step + 1): cfg.learning_rate(step) for step in run.losses["step"]}
    return points | losses | rates


def records(file):
    """The records of a TFRecord file: length and its checksum, the record and its own."""
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield data[12 : 12 + length]
        data = data[16 + length :]


def shown_by_tensorboard(folder):
    """Every scalar by its name and step; a restart hides what came before it of its step and later ones."""
    pytest.importorskip("tensorboardX", reason="the extra tracking is not installed")
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    shown = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        for record in records(file):
            event = Event.FromString(record)
            if event.session_log.status == SessionLog.START:
                shown = [point for point in shown if point[0][1] < event.step]
            shown += [
                ((value.tag, event.step), value.simple_value) for value in event.summary.value
            ]
    assert len(dict(shown)) == len(shown), "no point is there twice"
    return dict(shown)


class FakeWandb(types.ModuleType):
    """What is used of wandb: steps only rise, and a resume finds its run by a file until one ended well."""

    class Error(Exception):
        pass

    def __init__(self):
        super().__init__("wandb")
        self.histories = {}
        self.given = []

    def init(self, **given):
        self.given.append(given)
        file = self.file_in(given["dir"])
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            file.write_text(str(len(self.histories)))
        return FakeRun(self.histories.setdefault(file.read_text(), {}), file)

    def file_in(self, folder):
        return runs.Path(folder) / "wandb" / "wandb-resume.json"


class FakeRun:
    def __init__(self, history, file):
        self.history, self.file = history, file
        self.step = max(history, default=-1) + 1

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if kind is None:
            self.file.unlink()

    def log(self, values, step, commit):
        assert commit
        if step >= self.step:
            self.step = step + 1
            self.history[step] = values


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def shown_by_wandb(history):
    return {(name, step): value for step, row in history.items() for name, value in row.items()}


def stop_before_the_checkpoint(monkeypatch, step):
    """A kill when a point has been logged, and its checkpoint has not been saved."""
    save = RunWriter.save_checkpoint

    def save_or_fall(self, point):
        if point.step == step:
            raise SystemExit("killed")
        save(self, point)

    monkeypatch.setattr(RunWriter, "save_checkpoint", save_or_fall)


@pytest.mark.parametrize("step", [0, 10, 20, 60])
@pytest.mark.parametrize("how", ["killed early", "killed late", "ctrl-c"])
def test_logs_hold_every_point_once(train, cfg, monkeypatch, wandb, step, how):
    pytest.importorskip("tensorboardX", reason="the extra tracking is not installed")
    logs = ("tensorboard", "wandb")
    with monkeypatch.context() as patch:
        if how == "killed late":
            patch.setattr(trainer, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
            stop_before_the_checkpoint(patch, step)
        error = KeyboardInterrupt() if how == "ctrl-c" else SystemExit("killed")
        reporter = None if how == "killed late" else Stopping(step, error)
        with pytest.raises((SystemExit, Interrupted)):
            train("run", log=logs, reporter=reporter)
    run = train("run", log=logs, resume=True)
    points = expected(run, cfg)
    shown = shown_by_tensorboard(run.path / runs.TENSORBOARD)
    assert shown.keys() == points.keys()
    pd.testing.assert_series_equal(pd.Series(shown), pd.Series(points)[list(shown)], rtol=1e-6)
    (history,) = wandb.histories.values()
    assert shown_by_wandb(history) == points


def test_the_rate_of_a_step_is_that_of_the_update_which_led_to_it(train, cfg, wandb):
    warming = dataclasses.replace(cfg, steps=5, snapshots=(), lr=0.1, warmup_steps=4)
    train("run", log=["wandb"], config=warming)
    (history,) = wandb.histories.values()
    rates = {step: row["lr"] for step, row in history.items() if "lr" in row}
    assert rates == pytest.approx({1: 0.0, 2: 0.025, 3: 0.05, 4: 0.075, 5: 0.1})


def test_a_run_that_is_replaced_begins_its_logs_anew(train, cfg, wandb):
    pytest.importorskip("tensorboardX", reason="the extra tracking is not installed")
    with pytest.raises(SystemExit):
        train("run", log=["tensorboard", "wandb"], reporter=Stopping(40, SystemExit()))
    run = train("run", log=["tensorboard", "wandb"], overwrite=True)
    assert len(list((run.path / runs.TENSORBOARD).iterdir())) == 1
    assert len(wandb.histories) == 2
    assert shown_by_wandb(wandb.histories["1"]) == expected(run, cfg)


def test_wandb_is_told_of_the_run(train, cfg, wandb, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    train("first", log=["wandb"])
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    train("second", log=["wandb"])
    first, second = wandb.given
    assert (first["project"], first["name"], first["config"]) == (
        "jax-revinc",
        "first",
        cfg.to_dict(),
    )
    assert (second["project"], second["name"]) == ("mine", "second")


def test_what_wandb_says_is_one_sentence(train, wandb, monkeypatch, refuses_in_one_line):
    def no_key(**given):
        raise wandb.Error("no API key configured")

    monkeypatch.setattr(wandb, "init", no_key)
    with refuses_in_one_line(UserError, "wandb can't log the run", "no API key configured"):
        train("run", log=["wandb"])


def test_a_diverged_run_has_what_was_good(train, wandb):
    with pytest.raises(Diverged):
        train("run", engine=AddingEngine(losses={25: float("nan")}), log=["wandb"])
    (history,) = wandb.histories.values()
    assert max(history) == 24, "the last good update"


@pytest.mark.parametrize(("log", "library"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_library_names_the_extra(
    train, tmp_path, monkeypatch, refuses_in_one_line, log, library
):
    monkeypatch.setitem(sys.modules, library, None)
    with refuses_in_one_line(UserError, log, library, "pip install 'jax-revinc[tracking]'"):
        train("run", log=[log])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_wandbs_own_library_keeps_a_run_offline(train, monkeypatch):
    pytest.importorskip("wandb", reason="the extra tracking is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = train("run", log=["wandb"])
    (file,) = (run.path / runs.WANDB).glob("offline-run-*/run-*.wandb")
    assert all(metric.encode() in file.read_bytes() for metric in METRICS)
