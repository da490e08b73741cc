from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import jax
import numpy as np
import pytest
from jax._src import distributed
from populations import FLAGS, RECIPE, WIDTH, assert_same_store, command, names_below, outcomes

from jax_revinc import UserError
from jax_revinc.population import Population, load, train_population
from jax_revinc.population.processes import use_cpu_devices
from jax_revinc.population.progress import Progress
from jax_revinc.population.success_rate import success_table
from jax_revinc.training import draw_weights
from revinc.run_request import make_request
from revinc.run_writer import RunWriter
from revinc.sweep import IDENTITY, sweep
from revinc.terminal import PlainConsole

SEEDS = 48
"""Enough for a dozen shards."""


@pytest.fixture
def run_cli(run_cli):
    """A function that runs ``jax-revinc population`` in this process, on the devices that JAX has by itself."""
    jax.devices()
    return partial(run_cli, "population")


@pytest.fixture
def start(start_process):
    """A function that starts ``python -m jax_revinc population``."""

    def start_(out, *flags, **how):
        return start_process(command("--out", out, *flags, **how), stdout=subprocess.PIPE)

    return start_


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The population of `SEEDS` seeds, trained without interruption."""
    out = tmp_path_factory.mktemp("populations") / "whole"
    return train_population(
        RECIPE, sweep(RECIPE, seeds=range(SEEDS)), out, width=WIDTH, engine="xla"
    )


# What it does


def test_it_trains_what_the_flags_say_and_prints_how_it_went(run_cli, tmp_path):
    out = tmp_path / "new"
    flags = ["--seeds", "2:5", "--lr", "1e-2,1e6", "--split", "random,prefix", "--data-seed", "0"]
    outcome = run_cli("--out", out, *flags, *FLAGS)
    assert (outcome.status, outcome.err) == (0, [])
    expected = sweep(
        RECIPE,
        {"lr": [1e-2, 1e6], "split": ["random", "prefix"], "data_seed": [0]},
        seeds=range(2, 5),
    )
    trained = load(out)
    assert trained.metrics[list(IDENTITY)].equals(expected.rename_axis("model"))
    assert trained.config == RECIPE
    lines = [line for line in outcome.out.splitlines() if "% of the holdout" in line]
    assert [line.split(" | ")[0] for line in lines] == [f"{n}/12 models" for n in (4, 8, 12)]
    assert re.fullmatch(r"12/12 models \| 100% of the holdout: \d.*\[.*\], 6 diverged", lines[-1])
    assert outcome.out.splitlines()[-1] == f"Its page: jax-revinc atlas {out}"


def test_it_says_how_many_models_lost_what_they_had_learned(run_cli, whole, tmp_path, monkeypatch):
    lost = whole.best.assign(best_holdout_accuracy=1.0, lost_it=whole.best.index < 12)
    monkeypatch.setattr(Population, "best", lost)
    outcome = run_cli("--out", shutil.copytree(whole.path, tmp_path / "copy"), "--resume")
    *_, sentence, _ = outcome.out.splitlines()
    assert sentence.startswith("100% [92.6 .. 100.0] reached 100% of the holdout at some")
    assert sentence.endswith("had lost it again by the last one (12).")


def test_resume_needs_no_flags_but_the_store(run_cli, whole, tmp_path):
    out = tmp_path / "new"
    train_population(RECIPE, sweep(RECIPE, {"lr": [0.02]}, seeds=[3]), out, width=WIDTH)
    outcome = run_cli("--out", out, "--resume")
    assert (outcome.status, outcome.err) == (0, [])
    assert "1 models are finished already, 0 to go" in outcome.out
    outcome = run_cli("--out", out, "--resume", "--seeds", "1")
    assert (outcome.status, outcome.err) == (0, [])
    added = load(out)
    assert added.metrics["lr"].tolist() == [0.02, RECIPE.lr]
    number = added.metrics.index[-1]
    assert (
        outcomes(out)[tuple(added.metrics.loc[number, list(IDENTITY)])]
        == outcomes(whole.path)[tuple(getattr(RECIPE, name) for name in IDENTITY)]
    )


def test_an_axis_of_one_value_belongs_to_the_recipe(run_cli, tmp_path):
    flags = ["--out", tmp_path / "new", "--seeds", "1", "--optimizer", "sgd"]
    refused = run_cli(*flags, "--weight-decay", "0.1")
    assert (refused.status, len(refused.err)) == (2, 1)
    assert "optimizer='sgd' takes no weight_decay" in refused.err[0]
    accepted = run_cli(*flags, "--weight-decay", "0", "--width", "0")
    assert accepted.err == ["jax-revinc: width must be at least 1, not 0"]


def test_only_runs_keep_their_best_weights(run_cli, tmp_path):
    refused = run_cli("--out", tmp_path / "new", "--seeds", "2", "--keep", "best")
    assert (refused.status, len(refused.err)) == (2, 1)
    assert "a population keeps only final weights" in refused.err[0]
    assert not list(tmp_path.iterdir())


def test_help_lists_every_flag(run_cli):
    outcome = run_cli("--help")
    assert (outcome.status, outcome.err) == (0, [])
    flags = """--out --resume --seeds --width --devices --distributed --coordinator --processes --process
    --preset --lr --weight-decay --split --init-seed --data-seed --split-seed --steps --n-layers --task"""
    for flag in flags.split():
        assert f"{flag} " in outcome.out
    assert "--snapshots" not in outcome.out
    assert "--seed " not in outcome.out


def printed_table(metrics, width):
    console = PlainConsole(width=width)
    with console.capture() as printed:
        console.print(success_table(metrics, 1.0))
    return printed.get().splitlines()


OUTCOMES = ["models", "train 100%", "holdout 100%", "holdout", "diverged"]


def test_the_table_of_equal_recipes_shows_outcomes_alone(whole):
    above, heading, line = printed_table(whole.metrics, 80)
    assert above.split() == ["mean"]
    assert re.split(" {2,}", heading.strip()) == OUTCOMES
    assert re.fullmatch(r" +[\d,]+ +\d+\.?\d*% +\d+\.?\d*% \[.* \.\. .*\] +\S+% +0 *", line)


def test_the_table_fits_a_terminal_of_80_columns(whole):
    many = whole.metrics.sample(4096, replace=True, random_state=0)
    index = np.arange(4096)
    many = many.assign(
        lr=np.where(index % 2, 0.01, 0.025),
        weight_decay=np.where(index % 3, 0.01, 0.001),
        split=np.where(index % 5, "prefix", "random"),
    )
    above, heading, *lines = printed_table(many, 80)
    assert above.split() == ["mean"]
    assert re.split(" {2,}", heading.strip()) == ["lr", "decay", "split", *OUTCOMES]
    assert len(lines) == 8
    for line in lines:
        assert re.fullmatch(
            r" +0\.0\d+ +0\.0\d+ +(prefix|random) +[\d,]+ +\S+% +\S+% \[.* \.\. .*\] +\S+% +0 *",
            line,
        )


def test_the_table_has_a_column_of_an_end_of_the_rate_that_models_differ_in(whole):
    ends = np.where(whole.metrics.index < 4, 0.0, 2e-3)
    _, heading, *lines = printed_table(whole.metrics.assign(lr_end=ends), 100)
    assert "lr_end" in heading
    assert {line.split()[0] for line in lines} == {"0", "0.002"}


def test_a_terminal_shows_a_bar_with_models_speed_and_success(whole):
    console = PlainConsole(width=200, force_terminal=True, color_system=None)
    progress, store = Progress(console), whole._store
    with console.capture() as printed, progress.training(store, missing=[1, 2], done=[0]):
        for _ in range(4):
            time.sleep(0.01)
            progress.advance(WIDTH * RECIPE.steps // 4)
        progress.finished(whole.metrics.loc[4:7].assign(holdout_accuracy=1.0))
        (task,) = progress._bar.tasks
        assert (task.completed, task.total) == (WIDTH * RECIPE.steps, 2 * WIDTH * RECIPE.steps)
    first, *_, last = [line for line in printed.get().splitlines() if "models" in line]
    assert first == "4 models are finished already, 8 to go"
    assert re.search(
        r"training .* 8/12 models +[\d,.]+ models/s +100% of the holdout: 50\.0% \[21\.5 \.\. 78\.5\] +\d:\d\d:\d\d",
        last,
    )


def test_names_in_brackets_are_shown_as_they_are(capsys):
    Progress().say("shard 1 of /data/[bold]/new is trained again")
    assert capsys.readouterr().out == "shard 1 of /data/[bold]/new is trained again\n"


# What is refused

BAD_VALUES = [
    ("", "the number of models is missing: give --seeds; --seeds 4096 would train"),
    ("--lr 1e-3", "the number of models is missing"),
    ("--resume", "the number of models is missing"),
    ("--seeds 0", "seeds has no values"),
    ("--seeds 5:3", "seeds has no values"),
    ("--seeds -2", "seeds has no values"),
    ("--seeds=-2:2", "init_seed must be at least 0"),
    ("--seeds 4294967295:4294967297", "init_seed must be below 2**32"),
    ("--data-seed 3:3", "data_seed has no values"),
    ("--data-seed 0:4,2", "data_seed has 2 more than once"),
    ("--seeds 2 --lr 1e-3,0.001", "lr has 0.001 more than once"),
    ("--seeds 2 --lr 1e-3,nan", "lr must be"),
    ("--seeds 2 --weight-decay -1", "weight_decay must be"),
    ("--seeds 2 --split prefix,sufix", "unknown split 'sufix'"),
    ("--seeds 2 --init-seed 0 --data-seed 0 --split-seed 0", "all have values of their own"),
    ("--seeds 2 --width 0", "width must be at least 1"),
    ("--seeds 2 --width 100000000000", "width must be below 2**24"),
    ("--data-seed 0:5000 --init-seed 0:5000", "25,000,000 models are too many"),
    ("--seeds 2 --devices 0", "devices must be at least 1"),
    ("--seeds 2 --devices -1", "devices must be at least 1"),
    ("--seeds 2 --steps 0", "steps must be at least 1"),
    ("--seeds 2 --preset tutorail", "did you mean tutorial?"),
]


@pytest.mark.parametrize(("flags", "phrase"), BAD_VALUES, ids=[flags for flags, _ in BAD_VALUES])
def test_bad_values_are_one_sentence_and_leave_nothing_behind(run_cli, tmp_path, flags, phrase):
    outcome = run_cli("--out", tmp_path / "new", *flags.split())
    assert (outcome.status, outcome.out) == (2, "")
    (sentence,) = outcome.err
    assert sentence.startswith("jax-revinc: ")
    assert phrase in sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "phrase"),
    [
        ("--seeds 2", "--out"),
        ("--out new --seeds many", "argument --seeds: invalid"),
        ("--out new --seeds 1:2:3", "argument --seeds: invalid"),
        ("--out new --seeds 1000000000000", "--seeds: more seeds than the 16,777,216 models"),
        ("--out new --seeds 0:99999999999999999999999", "more seeds than the 16,777,216 models"),
        ("--out new --data-seed 0:9999999,5:9999999", "--data-seed: more seeds than"),
        ("--out new --seeds 2 --coordinator here:65536", "argument --coordinator: invalid"),
        ("--out new --seeds 2 --coordinator here:0", "argument --coordinator: invalid"),
        ("--out new --seeds 2 --lr fast", "argument --lr: invalid"),
        ("--out new --seeds 2 --width wide", "argument --width: invalid"),
        ("--out new --seeds 2 --snapshots 5", "unrecognized arguments: --snapshots 5"),
        ("--out new --seeds 2 --coordinator here", "argument --coordinator: invalid"),
        ("--out new --seeds 2 --coordinator here:x", "argument --coordinator: invalid"),
    ],
)
def test_flags_that_do_not_parse_show_their_usage(run_cli, tmp_path, monkeypatch, flags, phrase):
    monkeypatch.chdir(tmp_path)
    outcome = run_cli(*flags.split())
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err[0].startswith("usage: jax-revinc ")
    assert phrase in outcome.err[-1]
    assert list(tmp_path.iterdir()) == []


def test_seeds_alone_tell_how_to_add_to_a_store(run_cli, whole):
    outcome = run_cli("--out", whole.path, "--resume", "--lr", "0.5")
    assert outcome.status == 2
    assert "--seeds 4096 would add models" in outcome.err[0]


def test_a_run_folder_is_no_store(run_cli, tmp_path, monkeypatch):
    # It is refused before anything is built.
    monkeypatch.setattr("jax_revinc.population.training.choose_engine", pytest.fail)
    run = tmp_path / "run"
    request = make_request(RECIPE, run)
    with RunWriter(request, {"name": "xla"}, lambda: draw_weights(RECIPE)):
        pass
    before = names_below(run)
    for flags in (["--seeds", "1"], ["--seeds", "1", "--resume"]):
        outcome = run_cli("--out", run, *flags)
        assert outcome.status == 2
        assert "belong to no population" in outcome.err[0]
    assert names_below(run) == before


def test_a_number_of_devices_comes_too_late_once_jax_has_looked(whole):
    use_cpu_devices(None)
    with pytest.raises(UserError, match="devices can't be set"):
        use_cpu_devices(37)


@pytest.mark.parametrize(
    ("flags", "phrase"),
    [
        ("--processes 2", "coordinator_address should be defined"),
        ("--distributed", "coordinator_address should be defined"),
    ],
)
def test_other_processes_that_cannot_be_found_are_one_sentence(
    run_cli, tmp_path, monkeypatch, flags, phrase
):
    # As if JAX had not looked for devices yet: a process joins others first.
    monkeypatch.setattr(distributed.xla_bridge, "backends_are_initialized", lambda: False)
    outcome = run_cli("--out", tmp_path / "new", "--seeds", "1", *flags.split())
    assert (outcome.status, outcome.out) == (2, "")
    (sentence,) = outcome.err
    assert "the other processes can't be joined" in sentence
    assert phrase in sentence
    assert "--coordinator HOST:PORT, --processes and --process" in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence(run_cli, tmp_path, full_disk):
    with full_disk(100):
        outcome = run_cli("--out", tmp_path / "new", "--seeds", "2", *FLAGS)
    assert outcome.status == 2
    (sentence,) = outcome.err
    assert "File too large" in sentence


# What happens to it


def test_after_kill_9_a_resume_ends_in_the_same_store(start, whole, tmp_path):
    out = tmp_path / "new"
    process = start(out, "--seeds", SEEDS, stricken_by=signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < len(load(out)) < SEEDS
    train_population(RECIPE, load(out).planned, out, resume=True)
    assert_same_store(out, whole)


@pytest.mark.slow
def test_ctrl_c_is_one_sentence_and_loses_nothing_finished(start, whole, tmp_path):
    out = tmp_path / "new"
    process = start(out, "--seeds", SEEDS, "--devices", 1, stricken_by=signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr.splitlines() == [
        "jax-revinc: stopped; finished models are kept; to go on, run the command again with "
        f"--out {out} --resume"
    ]
    assert 0 < len(load(out)) < SEEDS
    train_population(RECIPE, whole.planned, out, resume=True)
    assert_same_store(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_it_ends_in_the_same_store(start, whole, tmp_path, seed):
    out, rng = tmp_path / "new", random.Random(seed)
    for _ in range(5):
        process = start(out, "--seeds", SEEDS, "--resume")
        try:
            process.communicate(timeout=rng.uniform(2, 8))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    process = start(out, "--seeds", SEEDS, "--resume")
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert_same_store(out, whole)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_models(start, tmp_path):
    def peak(n_models):
        process = start(tmp_path / str(n_models), "--seeds", n_models, "--devices", 1)
        process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        assert status == 0
        return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    assert peak(1200) < peak(20) + 20e6
