"""A recipe that is trained in a second, and what a store says of its models, to compare bit for bit."""

from __future__ import annotations

import dataclasses
import sys

from jax_revinc import PRESETS
from jax_revinc.population import load
from revinc.engine import METRICS
from revinc.sweep import IDENTITY

WIDTH = 4
RECIPE = dataclasses.replace(
    PRESETS["tutorial"],
    model=PRESETS["tutorial"].model.replace(n_layers=1),
    steps=60,
    eval_every=20,
)
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
"""A program that sends itself a signal when it has finished a chunk."""


def command(*flags, stricken_by=None):
    """The command that trains a population, or one that ends by a signal after its first chunk."""
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
    """What a folder holds, by name."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def assert_same_store(folder, whole):
    """Whether a folder holds what `whole`, an opened population, does: the same models in the same files."""
    assert outcomes(folder) == outcomes(whole.path)
    assert names_below(folder) == names_below(whole.path)
