from __future__ import annotations

import dataclasses
import itertools
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from fused_examples import require_compiler

from jax_revinc import HookedTransformer, Run, TrainConfig, UserError, train
from revinc import dataset, runs

pytestmark = pytest.mark.optimized

STEPS = {"xla": 20_000, "fused": 300_000}
"""Of a run that takes seconds, by engine."""


def flags(engine):
    """Those of `long_run`."""
    steps = STEPS[engine]
    words = f"--steps {steps} --eval-every 500 --snapshots every:{steps // 4} --engine {engine}"
    return words.split()


def bits(run):
    """Everything a finished run measured and kept, in a form that compares bit for bit."""
    weights = {step: run.state_dict(step) for step in (*run.snapshot_steps, None)}
    return (
        {step: {k: w.tobytes() for k, w in sd.items()} for step, sd in weights.items()},
        run.metrics.to_dict("list"),
        run.losses.to_dict("list"),
    )


@pytest.fixture(scope="module", params=["xla", pytest.param("fused", marks=pytest.mark.slow)])
def long_run(request, tmp_path_factory):
    """The uninterrupted run of `flags`."""
    if request.param == "fused":
        require_compiler()
    steps = STEPS[request.param]
    cfg = TrainConfig(steps=steps, eval_every=500, snapshots=tuple(range(0, steps + 1, steps // 4)))
    return train(cfg, tmp_path_factory.mktemp("runs") / "long", engine=request.param)


@pytest.fixture
def start(start_process, tmp_path):
    """A function that starts ``python -m jax_revinc train``; `anew`: it compiles as a first run does."""
    n_started = itertools.count()

    def start_(out, *flags, anew=True):
        cache = tmp_path / (f"cache{next(n_started)}" if anew else "cache")
        command = [sys.executable, "-m", "jax_revinc", "train", "--out", str(out), *flags]
        env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
        return start_process(command, stdout=subprocess.DEVNULL, env=env)

    return start_


@pytest.mark.parametrize(
    ("bad", "phrase"),
    [
        ({"cfg": 5}, "cfg must be a TrainConfig, not 5"),
        ({"cfg": TrainConfig}, "cfg must be a TrainConfig, not <class"),
        ({"out": None}, "out must be a path, not None"),
        ({"out": b"run"}, "out must be a path"),
        ({"out": "r\0n"}, "out must be a path"),
        ({"engine": 5}, "engine must be an engine's name or an Engine object, not 5"),
        ({"log": "tensorboard"}, "log must be a tuple of values, not 'tensorboard'"),
        ({"log": 5}, "log must be a tuple of values, not 5"),
        ({"init": 5}, "init must hold arrays by name"),
        ({"init": {}}, "init does not fit the config"),
    ],
    ids=str,
)
def test_what_train_cannot_use_is_refused_before_a_folder_is_made(tmp_path, bad, phrase):
    given = {"cfg": TrainConfig(steps=20), "out": tmp_path / "run", "engine": "xla", **bad}
    with pytest.raises(UserError, match=phrase):
        train(**given)
    assert not any(tmp_path.iterdir())


def test_a_new_run_makes_its_dataset_and_opens_its_folder_once(monkeypatch, tmp_path):
    made, opened = [], []

    def count(calls, function):
        return lambda *args, **kwargs: (calls.append(args), function(*args, **kwargs))[1]

    monkeypatch.setattr(dataset, "ListedDataset", count(made, dataset.ListedDataset))
    monkeypatch.setattr(runs, "read_checked_record", count(opened, runs.read_checked_record))
    train(TrainConfig(steps=20), tmp_path / "run", engine="xla")
    assert (len(made), len(opened)) == (1, 1)


@pytest.mark.parametrize("path", [5, None, b"run"], ids=str)
def test_what_is_no_path_is_no_run(path):
    with pytest.raises(UserError, match="must be a path"):
        Run.load(path)


def wait_for(file, process):
    """Return as soon as the process has written `file`."""
    while not file.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def kill(process):
    process.kill()
    assert process.wait() == -signal.SIGKILL


# What a run is


def test_a_run_gives_its_trained_model(short_run, tokens):
    run = Run.load(short_run.path)
    for step in (None, 0, 150, 300):
        model = run.model(step)
        assert isinstance(model, HookedTransformer)
        weights = run.state_dict(step)
        assert all(np.array_equal(model.state_dict()[name], w) for name, w in weights.items())
    assert np.array_equal(run.model()(tokens), run.model(300)(tokens))
    assert not np.array_equal(run.model()(tokens), run.model(150)(tokens))


def test_the_last_metrics_are_those_of_the_final_model(short_run, tutorial):
    sequences = tutorial.task.sequences()
    right = np.asarray(short_run.model()(sequences[:, :-1])).argmax(-1)[:, 4:] == sequences[:, 5:]
    last = short_run.metrics.iloc[-1]
    assert last.train_accuracy == right[:200].mean()
    assert last.holdout_accuracy == right[200:].mean()


def test_training_learns(short_run):
    losses = short_run.metrics["train_loss"]
    assert losses.iloc[-1] < 0.5 * losses.iloc[0]
    assert np.isfinite(short_run.losses["loss"]).all()


def test_a_run_is_its_config_bit_for_bit(short_run, tmp_path):
    assert bits(train(short_run.config, tmp_path / "again")) == bits(short_run)


def test_each_seed_changes_what_it_names(short_run, tmp_path):
    cfg = dataclasses.replace(short_run.config, steps=100, snapshots=())

    def embeddings(name, **changes):
        run = train(dataclasses.replace(cfg, **changes), tmp_path / name)
        return run.state_dict(0)["embed.W_E"], run.state_dict()["embed.W_E"]

    first, last = embeddings("same")
    assert np.array_equal(first, short_run.state_dict(0)["embed.W_E"])
    data_first, data_last = embeddings("data", data_seed=1)
    assert np.array_equal(first, data_first)
    assert not np.array_equal(last, data_last)
    assert not np.array_equal(first, embeddings("init", init_seed=1)[0])
    # A split seed means nothing to the prefix split.
    assert np.array_equal(last, embeddings("split", split_seed=1)[1])


def test_initial_weights_may_be_given(tutorial, random_weights, tmp_path):
    init = random_weights(tutorial.model)
    run = train(dataclasses.replace(tutorial, steps=100), tmp_path / "run", init=init)
    first = run.state_dict(0)
    assert all(np.array_equal(first[name], w) for name, w in init.items())


def test_initial_weights_that_do_not_fit_leave_no_run(tutorial, random_weights, tmp_path):
    init = random_weights(tutorial.model)
    del init["embed.W_E"]
    with pytest.raises(UserError, match=r"init does not fit the config: missing embed\.W_E"):
        train(tutorial, tmp_path / "run", init=init)
    with pytest.raises(UserError, match="is not a run folder"):
        Run.load(tmp_path / "run")


def test_initial_weights_that_do_not_fit_do_not_destroy_the_run_they_replace(tutorial, tmp_path):
    cfg = dataclasses.replace(tutorial, steps=100)
    before = bits(train(cfg, tmp_path / "run"))
    with pytest.raises(UserError, match="init"):
        train(cfg, tmp_path / "run", overwrite=True, init={})
    assert bits(Run.load(tmp_path / "run")) == before


def test_float64_trains_in_float64_and_leaves_jax_as_it_was(tutorial, short_run, tmp_path):
    before = jax.config.jax_enable_x64
    model = tutorial.model.replace(dtype="float64")
    run = train(dataclasses.replace(tutorial, model=model, steps=100), tmp_path / "run")
    assert {w.dtype for w in run.state_dict().values()} == {np.dtype(np.float64)}
    assert run.model().params["embed.W_E"].dtype == np.float64
    assert jax.config.jax_enable_x64 == before
    wide, narrow = run.losses["loss"][:20], short_run.losses["loss"][:20]
    np.testing.assert_allclose(wide, narrow, rtol=1e-3)
    assert not np.array_equal(wide, narrow)


def test_another_model_learns_another_task(tutorial, tmp_path):
    cfg = dataclasses.replace(
        tutorial,
        model=tutorial.model.replace(
            attn_only=True, normalization_type="LNPre", n_heads=2, n_layers=1, d_model=8
        ),
        task=dataclasses.replace(tutorial.task, length=2, n_symbols=3, shift=-1, reverse=False),
        steps=300,
        batch_size=4,
        split="random",
    )
    losses = train(cfg, tmp_path / "run").metrics["train_loss"]
    assert losses.iloc[-1] < 0.5 * losses.iloc[0]


def test_resuming_a_finished_run_changes_nothing(short_run):
    files = {file: file.stat().st_mtime_ns for file in short_run.path.rglob("*.*")}
    assert bits(train(short_run.config, short_run.path, resume=True)) == bits(short_run)
    assert {file: file.stat().st_mtime_ns for file in files} == files


# What happens to a run


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_an_uninterrupted_one(start, long_run, tmp_path):
    out = tmp_path / "run"
    process = start(out, *flags(long_run.engine["name"]))
    wait_for(out / runs.CONFIG, process)  # before the first checkpoint
    kill(process)
    assert not (out / runs.CHECKPOINT).exists()

    process = start(out, "--resume")
    wait_for(out / runs.CHECKPOINT, process)
    kill(process)
    assert not Run.load(out).finished

    process = start(out, "--resume")
    assert process.communicate() == (None, "")
    assert process.returncode == 0
    assert bits(Run.load(out)) == bits(long_run)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_run_killed_at_random_moments_ends_as_an_uninterrupted_one(
    start, long_run, tmp_path, seed
):
    out, rng = tmp_path / "run", random.Random(seed)
    # With programs kept from one start to the next, most moments are in the training.
    process = start(out, *flags(long_run.engine["name"]), anew=False)
    wait_for(out / runs.CONFIG, process)
    for _ in range(10):
        try:
            process.communicate(timeout=rng.uniform(0, 8))
        except subprocess.TimeoutExpired:
            kill(process)
        else:
            break
        process = start(out, "--resume", anew=False)
    process.communicate()
    assert bits(train(long_run.config, out, resume=True)) == bits(long_run)


@pytest.mark.slow
def test_ctrl_c_leaves_a_resumable_run_and_one_sentence(start, long_run, tmp_path):
    out = tmp_path / "run"
    process = start(out, *flags(long_run.engine["name"]))
    wait_for(out / runs.CHECKPOINT, process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert len(stderr.splitlines()) == 1
    assert "the training stopped at step" in stderr
    assert f"--out {out} --resume" in stderr
    assert bits(train(long_run.config, out, resume=True)) == bits(long_run)


def test_a_second_process_is_refused_while_the_first_writes(start, tmp_path):
    out = tmp_path / "run"
    first = start(out, *flags("xla"))
    wait_for(out / runs.CONFIG, first)
    for flag in ("--resume", "--overwrite"):
        with pytest.raises(UserError, match="being written by another process"):
            train(
                TrainConfig(steps=5),
                out,
                resume=flag == "--resume",
                overwrite=flag == "--overwrite",
            )
    assert first.poll() is None
    kill(first)
