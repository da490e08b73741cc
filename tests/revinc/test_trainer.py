from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revinc import TrainConfig, UserError, runs, trainer
from revinc.batch_schedule import draw_batches
from revinc.engine import LONGEST_CHUNK, chunk_capacity
from revinc.progress_output import Reporter
from revinc.runs import Run
from revinc.trainer import Diverged, Interrupted, boundaries

from .conftest import AddingEngine, Stopping


@pytest.fixture(autouse=True)
def checkpoint_at_every_chunk(monkeypatch):
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)


def results(run):
    """Everything a finished run measured and kept, in a form that compares bit for bit."""
    weights = {step: run.state_dict(step) for step in (*run.snapshot_steps, None)}
    return (
        {step: {k: w.tobytes() for k, w in sd.items()} for step, sd in weights.items()},
        run.metrics.to_dict("list"),
        run.losses.to_dict("list"),
        sorted(str(file.relative_to(run.path)) for file in run.path.rglob("*")),
    )


def test_a_run_evaluates_and_snapshots_when_asked(train):
    run = train("run")
    assert run.metrics["step"].tolist() == [0, 20, 40, 60]
    assert run.snapshot_steps == [0, 10, 40, 60]
    assert run.losses["step"].tolist() == list(range(60))
    assert run.finished


def test_the_result_is_that_of_single_updates_over_the_schedule(train, cfg, weights):
    from revinc.batch_schedule import draw_batches

    state = AddingEngine().start(weights)
    for batch in draw_batches(cfg.data_seed, np.arange(200), cfg.batch_size, 0, cfg.steps):
        state, _ = AddingEngine().advance(state, batch[None])
    final = train("run").state_dict()
    assert all(np.array_equal(final[name], state[0][name]) for name in final)


@pytest.mark.parametrize("step", [0, 10, 20, 40, 60])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit("killed")], ids=["ctrl-c", "kill"]
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(train, step, error):
    whole = results(train("whole"))
    with pytest.raises((Interrupted, SystemExit)):
        train("broken", reporter=Stopping(step, error))
    assert results(train("broken", resume=True)) == whole


def test_a_run_may_be_stopped_at_every_chunk(train):
    whole = results(train("whole"))
    for step in (0, 10, 20, 40, 60):
        with pytest.raises(Interrupted):
            train("broken", reporter=Stopping(step, KeyboardInterrupt()), resume=True)
    assert results(train("broken", resume=True)) == whole


def test_ctrl_c_says_where_it_stopped_and_how_to_go_on(train, tmp_path, refuses_in_one_line):
    with refuses_in_one_line(Interrupted, "step 20", f"--out {tmp_path / 'run'} --resume"):
        train("run", reporter=Stopping(20, KeyboardInterrupt()))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_that_python_drops_stops_the_run_after_the_chunk(train, drop_ctrl_c):
    class Dropping(Stopping):
        def reached(self, point):
            if point.step == self.step:
                drop_ctrl_c()

    whole = results(train("whole"))
    with pytest.raises(Interrupted, match="step 20;"):
        train("broken", reporter=Dropping(20, None))
    assert results(train("broken", resume=True)) == whole


def test_ctrl_c_before_the_first_update_leaves_a_resumable_run(train):
    class Early(Stopping):
        def training(self, cfg, begin):
            raise self.error

    whole = results(train("whole"))
    with pytest.raises(KeyboardInterrupt):
        train("broken", reporter=Early(0, KeyboardInterrupt()))
    assert results(train("broken", resume=True)) == whole


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("step", "last_good"), [(0, 0), (9, 8), (10, 10), (37, 36), (59, 58)])
def test_a_diverged_run_stops_and_names_the_step(
    train, tmp_path, loss, step, last_good, refuses_in_one_line
):
    engine = AddingEngine(losses={step: loss})
    with refuses_in_one_line(Diverged, f"at step {step} ", "lr=0.01", f"of step {last_good},"):
        train("run", engine)
    run = Run.load(tmp_path / "run")
    assert not run.finished
    assert run.snapshot_steps[-1] == last_good
    assert all(np.isfinite(w).all() for w in run.state_dict(last_good).values())


def test_a_diverged_run_diverges_again_when_resumed(train):
    engine = AddingEngine(losses={37: np.nan})
    for resume in (False, True):
        with pytest.raises(Diverged, match="at step 37 "):
            train("run", engine, resume=resume)


def test_initial_weights_that_are_not_finite_are_a_diverged_run(train, weights):
    weights["embed.W_E"][0, 0] = np.nan
    with pytest.raises(Diverged, match="at step 0 "):
        train("run")


@pytest.mark.parametrize("step", [1, 10, 13, 20, 40, 60])
def test_no_snapshot_but_the_first_ever_holds_weights_that_are_not_finite(train, tmp_path, step):
    # The loss of a batch is computed before its update: the update that breaks has a finite one.
    with pytest.raises(Diverged):
        train("run", AddingEngine(weights_after={step: np.inf}, losses={step: np.nan}))
    run = Run.load(tmp_path / "run")
    for kept in run.snapshot_steps:
        assert all(np.isfinite(w).all() for w in run.state_dict(kept).values())


def test_a_full_disk_stops_the_run_and_a_resume_ends_it(train, tmp_path, full_disk):
    whole = results(train("whole"))
    with pytest.raises(Interrupted):
        train("broken", reporter=Stopping(20, KeyboardInterrupt()))
    with full_disk(n_bytes=2000), pytest.raises(OSError, match="File too large"):
        train("broken", resume=True)
    assert not list((tmp_path / "broken").rglob("*.partial"))
    assert results(train("broken", resume=True)) == whole


def test_a_checkpoint_of_another_engines_arrays_is_refused(train, open_writer):
    with pytest.raises(Interrupted):
        train("run", reporter=Stopping(20, KeyboardInterrupt()))
    with open_writer("run", resume=True) as writer:
        point = writer.load_checkpoint()
        writer.save_checkpoint(dataclasses.replace(point, engine_arrays={}))
    with pytest.raises(UserError, match=runs.CHECKPOINT):
        train("run", resume=True)


@settings(max_examples=100)
@given(
    steps=st.integers(1, 5000),
    eval_every=st.integers(1, 6000),
    fractions=st.lists(st.floats(0, 1), max_size=4),
)
def test_chunks_end_wherever_something_is_due_and_never_outgrow_an_engine(
    steps, eval_every, fractions
):
    snapshots = tuple(int(steps * fraction) for fraction in fractions)
    cfg = TrainConfig(steps=steps, eval_every=eval_every, snapshots=snapshots)
    ends = boundaries(cfg)
    assert ends == sorted(set(ends))
    assert (ends[0], ends[-1]) == (0, steps)
    assert set(ends) >= {*range(0, steps + 1, eval_every), *snapshots}
    assert max(np.diff(ends)) <= min(chunk_capacity(cfg), LONGEST_CHUNK)


def test_a_resume_from_between_boundaries_skips_no_update(train, open_writer, cfg):
    """As after a release that pauses elsewhere."""
    whole = results(train("whole"))
    with pytest.raises(Interrupted):
        train("broken", reporter=Stopping(20, KeyboardInterrupt()))
    with open_writer("broken", resume=True) as writer:
        point = writer.load_checkpoint()
        batches = draw_batches(cfg.data_seed, np.arange(200), cfg.batch_size, 20, 33)
        (odd,) = trainer.replay(AddingEngine(), point, batches)
        assert odd.step == 33
        writer.save_checkpoint(odd.checkpoint)
    assert results(train("broken", resume=True)) == whole


def test_nothing_to_resume_is_said(train, capsys):
    train("new", resume=True, reporter=Reporter())
    assert "nothing to resume" in capsys.readouterr().out
