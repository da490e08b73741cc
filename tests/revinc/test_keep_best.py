"""A run that keeps its best weights: which they are, whenever it is stopped, and that nothing else changes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from revinc import UserError, run_writer, runs, trainer
from revinc.checksums import CHECKSUMS
from revinc.runs import Run
from revinc.trainer import Diverged, Interrupted

from .conftest import AddingEngine, Stopping

ACCURACY = {0: 0.1, 20: 0.5, 40: 0.9, 60: 0.9, 80: 1.0, 100: 0.3, 120: 0.4}
"""The holdout accuracies of a run that is best at step 80. A checkpoint is written at every chunk."""

BEST = 80


@pytest.fixture(autouse=True)
def checkpoint_at_every_chunk(monkeypatch):
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)


@pytest.fixture
def cfg(cfg):
    return dataclasses.replace(cfg, steps=120, snapshots=(40,))


class Fading(AddingEngine):
    """An engine that evaluates to given accuracies."""

    def __init__(self, accuracy=ACCURACY, **others):
        super().__init__(**others)
        self.accuracy = accuracy

    def evaluate(self, state):
        accuracy = self.accuracy[int(state[1])]
        return {**super().evaluate(state), "holdout_accuracy": accuracy, "holdout_loss": 1.0}


class Slain(BaseException):
    """What no program handles."""


def weights_of(run, step):
    return {name: weight.tobytes() for name, weight in run.state_dict(step).items()}


def results(run):
    """Everything that a finished run measured and kept, in a form that compares bit for bit."""
    return (
        {step: weights_of(run, step) for step in (*run.snapshot_steps, None, "best")},
        run.metrics.to_dict("list"),
        run.losses.to_dict("list"),
        sorted(str(file.relative_to(run.path)) for file in run.path.rglob("*")),
    )


def test_the_best_weights_are_those_of_the_best_evaluation(train, cfg):
    every = train("every", Fading(), config=dataclasses.replace(cfg, snapshots=range(0, 121, 20)))
    run = train("run", Fading(), keep="best")
    assert run.best_step == BEST
    assert run.snapshot_steps == [0, 40, BEST, 120]
    assert weights_of(run, "best") == weights_of(every, BEST)


def test_of_equals_the_one_with_the_lower_loss_is_kept_then_the_earliest(train):
    class Sharpening(Fading):
        def evaluate(self, state):
            loss = {20: 0.5, 40: 0.2, 60: 0.1, 80: 0.1}.get(int(state[1]), 9.0)
            return {**super().evaluate(state), "holdout_loss": loss, "holdout_accuracy": 1.0}

    run = train("run", Sharpening(), keep="best")
    assert run.best_step == 60
    assert run.snapshot_steps == [0, 40, 60, 120]


def test_nothing_else_of_a_run_changes(train):
    plain, run = train("plain", Fading()), train("run", Fading(), keep="best")
    for step in (*plain.snapshot_steps, None):
        assert weights_of(plain, step) == weights_of(run, step)
    assert (plain.config, plain.recipe, plain.engine) == (run.config, run.recipe, run.engine)
    for name in (runs.METRICS, runs.LOSSES, runs.WEIGHTS):
        assert (plain.path / name).read_bytes() == (run.path / name).read_bytes()
    record = json.loads((run.path / runs.CONFIG).read_text())
    assert record.pop("keep") == "best"
    assert record == json.loads((plain.path / runs.CONFIG).read_text())


@pytest.mark.parametrize("best", [0, 40, 120])
def test_a_best_step_whose_snapshot_is_kept_anyway_needs_no_other(train, best):
    accuracy = {**dict.fromkeys(ACCURACY, 0.2), best: 0.7}
    for flags in ({}, {"keep": "best"}):
        run = train(f"run {len(flags)}", Fading(accuracy), **flags)
        assert run.snapshot_steps == [0, 40, 120]
        assert weights_of(run, "best") == weights_of(run, best)


@pytest.mark.parametrize("step", [0, 20, 40, 60, 80, 100, 120])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit("killed")], ids=repr)
def test_a_resumed_run_keeps_the_same_weights(train, step, error):
    whole = results(train("whole", Fading(), keep="best"))
    with pytest.raises((Interrupted, SystemExit)):
        train("broken", Fading(), reporter=Stopping(step, error), keep="best")
    assert results(train("broken", Fading(), resume=True)) == whole


def test_a_run_that_is_killed_at_any_change_of_its_folder_keeps_the_same_weights(
    train, tmp_path, monkeypatch
):
    """Before each file that is written, appended to or deleted, in turn."""
    whole = results(train("whole", Fading(), keep="best"))
    left = 0

    def mortal(change):
        def changing(*args, **options):
            nonlocal left
            left -= 1
            if left == 0:
                raise Slain
            return change(*args, **options)

        return changing

    monkeypatch.setattr(run_writer, "write_bytes", mortal(run_writer.write_bytes))
    monkeypatch.setattr(run_writer, "save_state_dict", mortal(run_writer.save_state_dict))
    monkeypatch.setattr(run_writer.Journal, "add", mortal(run_writer.Journal.add))
    monkeypatch.setattr(Path, "unlink", mortal(Path.unlink))
    for change in range(1, 200):
        left = change
        folder = f"broken {change}"
        try:
            train(folder, Fading(), keep="best")
        except Slain:
            left = 0
            run = train(folder, Fading(), resume=True, keep="best")
            (run.path / runs.CHECKPOINT).unlink(missing_ok=True)  # of a run that was just finished
            assert results(run) == whole, change
        else:
            assert change > 20
            return
    raise AssertionError("it was killed every time")


def test_a_resume_that_rounds_differently_still_has_its_best_weights(train, monkeypatch):
    """As on a GPU: an evaluation after the checkpoint was better, and isn't the second time."""
    save = run_writer.RunWriter.save_checkpoint

    def save_until(writer, checkpoint):
        if checkpoint.step == 80:
            raise SystemExit("killed")
        save(writer, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(run_writer.RunWriter, "save_checkpoint", save_until)
        with pytest.raises(SystemExit):
            train("run", Fading({**ACCURACY, 60: 0.95}), keep="best")
    run = train("run", Fading({**ACCURACY, 60: 0.95, 80: 0.2}), resume=True)
    assert run.best_step == 60
    assert run.snapshot_steps == [0, 40, 60, 120]
    assert run.state_dict("best")


def test_a_diverged_run_keeps_its_best_and_its_last_good_weights(train, tmp_path):
    for resume in (False, True):
        with pytest.raises(Diverged, match="at step 111 "):
            train("run", Fading(losses={111: np.nan}), keep="best", resume=resume)
    assert Run.load(tmp_path / "run").snapshot_steps == [0, 40, 80, 110]


def test_a_run_without_them_says_how_to_keep_them(train, tmp_path, refuses_in_one_line):
    run = train("run", Fading())
    with refuses_in_one_line(UserError, run.path, "was best at step 80", "--keep best"):
        run.state_dict("best")
    with refuses_in_one_line(UserError, run.path, "begun without --keep best"):
        train("run", Fading(), keep="best", resume=True)
    assert train("run", Fading(), resume=True).snapshot_steps == [0, 40, 120]


def test_an_unfinished_run_has_no_best_weights_yet(train, tmp_path, refuses_in_one_line):
    with pytest.raises(Interrupted):
        train("run", Fading(), reporter=Stopping(100, KeyboardInterrupt()), keep="best")
    with refuses_in_one_line(UserError, "not finished"):
        Run.load(tmp_path / "run").state_dict("best")


def test_only_best_is_kept_and_asked_for(train, refuses_in_one_line):
    run = train("run", Fading(), keep="best")
    with refuses_in_one_line(UserError, "unknown keep 'worst'"):
        train("other", Fading(), keep="worst")
    with refuses_in_one_line(UserError, "step must be an integer"):
        run.state_dict("first")
    record = json.loads((run.path / runs.CONFIG).read_text())
    for wrong in ("worst", True, ["best"]):
        (run.path / runs.CONFIG).write_text(json.dumps({**record, "keep": wrong}))
        with refuses_in_one_line(UserError, runs.CONFIG, "keep must be best"):
            Run.load(run.path)


def test_damaged_best_weights_are_named(train, refuses_in_one_line):
    run = train("run", Fading(), keep="best")
    file = run.path / runs.weights_name(BEST)
    file.write_bytes(file.read_bytes()[:-1])
    with refuses_in_one_line(UserError, file, CHECKSUMS):
        Run.load(run.path).state_dict("best")


def test_a_new_run_in_its_place_keeps_nothing_of_it(train, cfg):
    train("run", Fading(), keep="best")
    run = train("run", Fading(), overwrite=True)
    assert run.keep is None
    assert run.snapshot_steps == [0, 40, 120]
