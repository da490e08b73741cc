from __future__ import annotations

import dataclasses
import signal
import socket
import subprocess

import pytest

from jax_revinc import UserError
from jax_revinc.population import load, train_population, writer
from jax_revinc.population import store as names
from jax_revinc.population.store import read_store
from jax_revinc.population.writer import claimed, planned
from revinc.sweep import sweep

from .populations import RECIPE, WIDTH, assert_same_store, command, names_below

SEEDS = 48
"""Enough for a dozen chunks, so that a process has work left when it dies after its first."""

SECONDS_TO_END = 200
"""Within which a process ends, whatever else the machine has to do."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The population of `SEEDS` seeds, trained by one process on one device."""
    out = tmp_path_factory.mktemp("populations") / "whole"
    return train_population(
        RECIPE, sweep(RECIPE, seeds=range(SEEDS)), out, width=WIDTH, engine="xla"
    )


class Job:
    """Processes that train one population. The others wait for the first at a port that was free."""

    def __init__(self, start_process, out, n_processes):
        self.start_process, self.out, self.n_processes = start_process, out, n_processes
        with socket.socket() as any_free:
            any_free.bind(("127.0.0.1", 0))
            self.port = any_free.getsockname()[1]

    def start(self, process, *flags, **how):
        """Start, or start again, one of the processes."""
        where = ["--coordinator", f"127.0.0.1:{self.port}", "--processes", self.n_processes]
        what = ["--process", process, "--devices", 1, "--seeds", SEEDS, "--out", self.out]
        return self.start_process(command(*where, *what, *flags, **how), stdout=subprocess.PIPE)


@pytest.fixture
def job(start_process, tmp_path):
    """A function that makes a `Job` of some processes, which end with the test."""
    return lambda n_processes, out=tmp_path / "new": Job(start_process, out, n_processes)


def assert_dies(process):
    _, err = process.communicate(timeout=SECONDS_TO_END)
    assert process.returncode == -signal.SIGKILL, err


def assert_ends_well(process):
    out, err = process.communicate(timeout=SECONDS_TO_END)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return out


@pytest.mark.slow
def test_a_process_that_dies_may_be_started_again_while_the_others_go_on(job, whole, tmp_path):
    two = job(2)
    first, second = two.start(0), two.start(1, stricken_by=signal.SIGKILL)
    assert_dies(second)
    second = two.start(1)
    out = assert_ends_well(first)
    assert "process 0 of 2" in out
    assert "jax-revinc atlas" in out
    assert "jax-revinc atlas" not in assert_ends_well(second)
    assert_same_store(tmp_path / "new", whole)


@pytest.mark.slow
def test_three_processes_write_the_store_of_one(job, whole, tmp_path):
    three = job(3)
    last = three.start(2, stricken_by=signal.SIGKILL)
    others = [three.start(0), three.start(1)]
    assert_dies(last)
    for process in [three.start(2), *others]:
        assert_ends_well(process)
    assert_same_store(tmp_path / "new", whole)


@pytest.mark.slow
def test_when_the_first_dies_all_end_and_a_resume_ends_in_the_same_store(job, whole, tmp_path):
    two = job(2)
    first, second = two.start(0, stricken_by=signal.SIGKILL), two.start(1)
    assert_dies(first)
    second.communicate(timeout=SECONDS_TO_END)
    assert second.returncode not in (0, None)
    again = job(2)
    for process in [again.start(process, "--resume") for process in (0, 1)]:
        assert_ends_well(process)
    assert_same_store(tmp_path / "new", whole)


@pytest.mark.slow
@pytest.mark.parametrize("already", ["a thesis", "a population"])
def test_when_the_first_refuses_the_others_say_why(job, whole, tmp_path, already):
    out = tmp_path / "new"
    if already == "a thesis":
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
    else:
        train_population(RECIPE, sweep(RECIPE, seeds=range(4)), out, width=WIDTH)
    before = names_below(out)
    two = job(2)
    processes = [two.start(process) for process in (1, 0)]
    for process in processes:
        _, err = process.communicate(timeout=SECONDS_TO_END)
        assert process.returncode == 2
        why = "belong to no population" if already == "a thesis" else "already holds a population"
        assert why in err.splitlines()[-1]
    assert names_below(out) == before


@pytest.mark.slow
def test_a_damaged_chunk_of_another_process_is_trained_again(job, whole, tmp_path):
    out = tmp_path / "new"
    train_population(RECIPE, whole.planned, out, width=WIDTH, engine="xla")
    weights = out / names.WEIGHTS / "embed.W_E/c/7/0/0"
    weights.write_bytes(weights.read_bytes()[::-1])
    two = job(2)
    first, second = two.start(0, "--resume"), two.start(1, "--resume")
    assert "chunk 7 is trained again" in assert_ends_well(first)
    assert_ends_well(second)
    assert_same_store(out, whole)


@pytest.mark.slow
def test_eight_devices_write_the_store_of_one(whole, tmp_path):
    out = tmp_path / "new"
    eight = command("--out", out, "--seeds", SEEDS, "--devices", 8)
    finished = subprocess.run(eight, capture_output=True, text=True, check=True)
    assert "8 x cpu" in finished.stdout
    assert_same_store(out, whole)


# What a process sees of the plan of the first


@pytest.fixture
def store(tmp_path):
    """A store whose models are planned, and none is finished."""
    models = sweep(RECIPE, seeds=range(5))
    with claimed(tmp_path / "store", RECIPE, {"width": "4"}, models, resume=False):
        pass
    return read_store(tmp_path / "store")


def test_the_plan_of_the_first_process_is_every_ones(store):
    seen = planned(store.path, RECIPE, store.engine, sweep(RECIPE, seeds=[4, 2]))
    assert seen.models.equals(store.models)


def test_a_process_with_other_models_than_the_first_does_not_wait_forever(store, monkeypatch):
    monkeypatch.setattr(writer, "SECONDS_TO_APPEAR", 0.5)
    with pytest.raises(UserError, match="give every process the same options"):
        planned(store.path, RECIPE, store.engine, sweep(RECIPE, seeds=range(6)))
    with pytest.raises(UserError, match="an --out that all of them see"):
        planned(store.path.with_name("elsewhere"), RECIPE, store.engine, store.models)


def test_a_process_with_another_recipe_or_engine_than_the_first_is_refused(store):
    with pytest.raises(UserError, match="steps: 60 here, 70 there"):
        planned(
            store.path,
            dataclasses.replace(RECIPE, steps=70),
            store.engine,
            load(store.path).planned,
        )
    with pytest.raises(UserError, match="rounding differs"):
        planned(store.path, RECIPE, {"width": "8"}, load(store.path).planned)
