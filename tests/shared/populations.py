"""A recipe that is trained in a second, and what a store says of its models, to compare bit for bit."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import contextmanager

import pytest

from jax_revinc import PRESETS, UserError
from jax_revinc.population import load
from jax_revinc.population.prepare_folder import prepare, store_lock
from revinc.engine import METRICS
from revinc.folders import is_aside
from revinc.sweep import IDENTITY, sweep

WIDTH = 4
RECIPE = dataclasses.replace(
    PRESETS["tutorial"],
    model=PRESETS["tutorial"].model.replace(n_layers=1),
    steps=60,
    eval_every=20,
)
HOPELESS = 1e30
"""A learning rate after whose first update every loss is NaN, however its terms are rounded."""

SMALL = sweep(RECIPE, {"lr": [1e-2, HOPELESS]}, seeds=range(5))
"""The models of the fixture `small`."""

FLAGS = f"--n-layers 1 --steps 60 --eval-every 20 --width {WIDTH} --engine xla".split()


STRICKEN = """
import os, sys, time
from jax_revinc.__main__ import main
from jax_revinc.population.progress import Progress

finished = Progress.finished

def finish_and_fall(self, measured):
    finished(self, measured)
    os.kill(os.getpid(), {signal:d})
    time.sleep(1)

Progress.finished = finish_and_fall
sys.exit(main())
"""
"""A program that sends itself a signal when it has finished a shard."""


@contextmanager
def refuses_in_one_line(phrase):
    """That its body ends in a UserError which says something in one line."""
    with pytest.raises(UserError) as refusal:
        yield
    assert phrase in str(refusal.value)
    assert "\n" not in str(refusal.value)


def command(*flags, stricken_by=None):
    """The command that trains a population, or one that ends by a signal after its first shard."""
    program = (
        ["-m", "jax_revinc"] if stricken_by is None else ["-c", STRICKEN.format(signal=stricken_by)]
    )
    return [sys.executable, *program, "population", *map(str, flags), *FLAGS]


def bits(weights):
    """Weights as bytes."""
    return {name: array.tobytes() for name, array in weights.items()}


def outcomes(store):
    """For every finished model of a store, by its identity: what was measured, and its weights."""
    population = load(store)
    metrics, params = population.metrics, population.params(slice(None))
    curves = {metric: population.curves(metric) for metric in METRICS}
    found = {}
    for i, (_, row) in enumerate(metrics.iterrows()):
        measured = row.drop(list(IDENTITY)).astype(str).to_dict()
        along = {metric: curve[i].tobytes() for metric, curve in curves.items()}
        weights = {name: array[i].tobytes() for name, array in params.items()}
        found[tuple(row[list(IDENTITY)])] = (measured, along, weights)
    return found


def names_below(folder):
    """What a folder holds, by name, but for what was set aside there."""
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    return sorted(str(file) for file in files if not any(map(is_aside, file.parts)))


def assert_same_store(folder, whole):
    """Whether a folder holds what `whole`, an opened population, does: the same models in the same files."""
    assert outcomes(folder) == outcomes(whole.path)
    assert names_below(folder) == names_below(whole.path)


@contextmanager
def claimed(path, cfg, engine, models, resume):
    """The store in a folder with all of `models`, begun or gone on with, and held by this process."""
    with store_lock(path):
        yield prepare(path, cfg, engine, models, resume, say=lambda sentence: None)
