"""How the circuit formed: attention at every snapshot of the weights, and how much of it reads what is needed."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.model import HookedTransformer
from jax_revinc.numerics import numerics
from jax_revinc.objective import Params
from jax_revinc.report import figures
from jax_revinc.report.contents import percent
from jax_revinc.report.gallery import predicting
from jax_revinc.report.shell import Gallery, Picture
from jax_revinc.training import Run
from revinc import HookedTransformerConfig, Task
from revinc.tasks import reading_cells
from revinc.weights import StateDict

STEP = "step"
"""The chooser of the snapshot that is shown."""

MOST_SNAPSHOTS = 100
"""Snapshots that are shown; more are thinned out, but the last stays."""

MOST_SEQUENCES = 1024
"""Sequences that a mean pattern is over: the first, if the task has more."""


def shown_steps(run: Run) -> list[int]:
    """The steps of the snapshots that are shown, ascending."""
    steps = sorted(run.snapshot_steps)
    every = -(-len(steps) // MOST_SNAPSHOTS) or 1
    return steps[::-1][::every][::-1]


def forming_pictures(run: Run) -> Gallery:
    """Every head's mean pattern at each snapshot, and the curves of what it reads; none without snapshots."""
    steps = shown_steps(run)
    if len(steps) < 2:
        return {}
    patterns = snapshot_patterns(run, steps)
    cfg = run.config
    cells = reading_cells(cfg.task)
    heads = [
        (layer, head) for layer in range(cfg.model.n_layers) for head in range(cfg.model.n_heads)
    ]
    labels = cfg.task.position_labels[:-1]
    gallery = {
        f"forming-{layer}-{head}": figures.pattern_picture(
            list(patterns[:, layer, head]),
            [labels] * len(steps),
            axis=STEP,
            title=f"Layer {layer}, head {head}",
            predicting=predicting(cfg.task),
            reading=cells,
        )
        for layer, head in heads
    }
    if cells:
        rows, columns = np.array(cells).T
        read = patterns[..., rows, columns].mean(-1)
        gallery["reading"] = Picture(
            reading_figure(steps, {f"L{a}H{b}": read[:, a, b] for a, b in heads})
        )
    return gallery


def step_labels(run: Run) -> list[str]:
    """What the slider says at every snapshot."""
    metrics = run.metrics.set_index("step")
    return [
        f"step {step:,}"
        + (
            f": train {percent(metrics.train_accuracy[step])}, holdout {percent(metrics.holdout_accuracy[step])}"
            if step in metrics.index
            else ""
        )
        for step in shown_steps(run)
    ]


def snapshot_patterns(run: Run, steps: list[int]) -> Float[np.ndarray, "step layer head query key"]:
    """The mean pattern of every head at each snapshot, all in one program."""
    snapshots = [run.state_dict(step) for step in steps]
    stacked = {name: np.stack([snapshot[name] for snapshot in snapshots]) for name in snapshots[0]}
    return mean_patterns(run.config.model, stacked, run.config.task)


def mean_patterns(
    cfg: HookedTransformerConfig, stacked: StateDict, task: Task
) -> Float[np.ndarray, "model layer head query key"]:
    """The mean pattern of every head in each of several models, all in one program.

    Args:
        cfg: of all models.
        stacked: their weights, with a model axis first.
        task: whose sequences the mean is over.
    """
    tokens = task.sequences()[:MOST_SEQUENCES, :-1]
    with numerics(cfg):
        return np.asarray(_mean_patterns(cfg, stacked, tokens))


@functools.partial(jax.jit, static_argnums=0)
def _mean_patterns(
    cfg: HookedTransformerConfig, stacked: Params, tokens: Int[Array, "batch pos"]
) -> Float[Array, "model layer head query key"]:
    def one(params: Params) -> Array:
        _, cache = HookedTransformer(cfg, params=params).run_with_cache(tokens)
        return jnp.stack([cache["pattern", layer].mean(0) for layer in range(cfg.n_layers)])

    return jax.lax.map(one, stacked)


def reading_figure(steps: list[int], read: dict[str, Float[np.ndarray, " step"]]) -> go.Figure:
    """The share of the predicting rows' attention that is on the token that they need, at every snapshot."""
    figure = go.Figure()
    for label, shares in read.items():
        figure.add_scatter(
            x=steps,
            y=shares.round(4).tolist(),
            name=label,
            mode="lines",
            line={"width": 2.2},
            hovertemplate="%{y:.1%}",
        )
    figure.update_yaxes(range=[0, 1.03], tickformat=".0%", title="attention on the needed token")
    return figure.update_layout(
        figures.CURVES_LAYOUT,
        title={"text": "When heads learned where to look"},
        showlegend=True,
    )
