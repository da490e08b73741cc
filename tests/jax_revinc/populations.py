"""A recipe that is trained in a second, and what a store says of its models, to compare bit for bit."""

from __future__ import annotations

import dataclasses

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
FLAGS = f"--n-layers 1 --steps 60 --eval-every 20 --width {WIDTH}".split()


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
