"""Plotly figures of runs, models and populations, for notebooks, run pages and atlas pages.

For example ``jax_revinc.plots.attention(model, tokens)``. The figures of a population take the
tables that `jax_revinc.survey` makes.
"""

from jax_revinc.plots.circuits import direct_path, mlp_maps, ov_circuits, qk_circuits
from jax_revinc.plots.claims import claim_rates, increment_shares
from jax_revinc.plots.components import (
    attention,
    attribution,
    increments,
    mlp_outputs,
    mlp_weights,
)
from jax_revinc.plots.effects import ablation, patching, paths, position_ablation
from jax_revinc.plots.hyperparameters import success
from jax_revinc.plots.population_training import accuracy_histogram, learning_curves
from jax_revinc.plots.scatterplot import scatter
from jax_revinc.plots.training import accuracy, loss, reading

__all__ = [
    "ablation",
    "accuracy",
    "accuracy_histogram",
    "attention",
    "attribution",
    "claim_rates",
    "direct_path",
    "increment_shares",
    "increments",
    "learning_curves",
    "loss",
    "mlp_maps",
    "mlp_outputs",
    "mlp_weights",
    "ov_circuits",
    "patching",
    "paths",
    "position_ablation",
    "qk_circuits",
    "reading",
    "scatter",
    "success",
]
