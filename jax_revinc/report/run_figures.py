"""The figures on the HTML page of a run, some with versions among which a reader chooses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jax_revinc.analysis.effects import costs, lost_shares, recovered
from jax_revinc.analysis.increment import Increment
from jax_revinc.analysis.snapshots import reading_shares, shown_steps, snapshot_patterns
from jax_revinc.plots import circuits, heatmaps, training
from jax_revinc.plots import components as component_plots
from jax_revinc.plots import effects as effect_plots
from jax_revinc.report import model_findings
from jax_revinc.report.model_behaviour import View
from jax_revinc.report.model_findings import Circuits, Findings
from jax_revinc.report.render_html import Gallery, Picture, make_gallery
from jax_revinc.training import Run
from revinc import HookedTransformerConfig, Task
from revinc.tasks import reading_cells
from revinc.weights import StateDict

SEQUENCE = "sequence"
"""The chooser of the sequence that is shown."""

STEP = "step"
"""The chooser of the snapshot that is shown."""

Patterns = Sequence[Float[np.ndarray, "n_heads query key"]]
"""Attention patterns by layer."""


def curves(run: Run) -> Gallery:
    """Pictures of a run's loss and accuracy during training."""
    return make_gallery({"loss": training.loss(run), "accuracy": training.accuracy(run)})


def forming(run: Run) -> Gallery:
    """Pictures of how every head's attention pattern forms, from weights saved during training.

    There is a version for each snapshot; a run with fewer than two snapshots has no pictures.
    """
    steps, task = shown_steps(run), run.config.task
    if len(steps) < 2:
        return {}
    patterns = snapshot_patterns(run, steps)
    labels = [task.position_labels[:-1]] * len(steps)
    pictures = pattern_pictures("forming", list(patterns), labels, STEP, task)
    if reading_cells(task):
        shares = reading_shares(patterns, task)
        pictures["reading"] = Picture(training.reading_figure(steps, shares))
    return pictures


def pattern_pictures(
    name: str,
    patterns: Sequence[Patterns],
    labels: Sequence[Sequence[str]],
    axis: str,
    task: Task,
) -> Gallery:
    """A dict from names like "pattern-0-1" (layer, head) to a picture of that head's attention.

    Args:
        name: how the names begin.
        patterns: the patterns of each version.
        labels: the names of the positions in each version.
        axis: the chooser of the version.
        task: names answers, and the tokens that they depend on.
    """
    answers, needed = component_plots.answer_names(task), reading_cells(task)
    pictures = {}
    for layer, of_layer in enumerate(patterns[0]):
        for head, pattern in enumerate(of_layer):
            figure = component_plots.head_figure(pattern, (layer, head), labels[0], task)
            versions = [
                heatmaps.pattern_version(version[layer][head], names, answers, needed)
                for version, names in zip(patterns, labels, strict=True)
            ]
            part = {"layer": layer, "head": head}
            pictures[f"{name}-{layer}-{head}"] = Picture(figure, axis, versions, part)
    return pictures


def mlp_outputs(views: Sequence[View]) -> Gallery:
    """Pictures of each layer's MLP output, on each sequence that is shown and on average."""
    pictures = {}
    for layer in range(len(views[0].activity.mlp_outs)):
        outputs = [view.activity.mlp_outs[layer] for view in views]
        figure = component_plots.mlp_output_figure(
            outputs[0], layer, views[0].labels, float(np.abs(outputs).max())
        )
        versions = [
            heatmaps.matrix_version(output, view.labels)
            for output, view in zip(outputs, views, strict=True)
        ]
        pictures[f"mlp_out-{layer}"] = Picture(figure, SEQUENCE, versions, {"layer": layer})
    return pictures


def attribution(task: Task, views: Sequence[View]) -> Gallery:
    """A picture of what each component adds to the right tokens' logits, for each sequence."""
    votes = [view.activity.attribution for view in views]
    components = views[0].components
    largest = float(np.quantile(np.abs(votes), component_plots.STRONG_VOTES))
    figure = component_plots.attribution_figure(votes[0], components, task, largest)
    versions = [heatmaps.matrix_version(vote, components) for vote in votes]
    return {"attribution": Picture(figure, SEQUENCE, versions)}


def effects(found: Findings, cfg: HookedTransformerConfig, task: Task) -> Gallery:
    """Pictures of ablation and, if the task has tokens that decide its answers, of patching."""
    figures = {}
    if found.patches is not None and found.paths is not None:
        figures = effect_plots.patching_figures(recovered(found.patches), task)
        lost = lost_shares(cfg, found.paths, np.asarray(found.patches.corrupted).mean())
        figures["paths"] = effect_plots.paths_figure(lost)
    n_fed = len(task.position_labels) - 1
    of_ablation = costs(cfg, n_fed, found.ablation)
    return make_gallery(figures | effect_plots.ablation_figures(of_ablation, task))


def weight_circuits(found: Circuits | None, cfg: HookedTransformerConfig, task: Task) -> Gallery:
    """Pictures of QK and OV circuits, MLP maps and the direct path; empty for large models."""
    if found is None:
        return {}
    heads = zip(
        circuits.qk_figures(found.qk, cfg, task).items(),
        circuits.ov_figures(np.asarray(found.ov), task).items(),
        strict=True,
    )
    figures = dict(itertools.chain.from_iterable(heads))
    if found.mlp is not None:
        figures |= circuits.mlp_figures(np.asarray(found.mlp), task)
    return make_gallery(
        figures | {"direct": circuits.direct_figure(np.asarray(found.direct), task)}
    )


def increments(found: Increment | None, cfg: HookedTransformerConfig, task: Task) -> Gallery:
    """Pictures of what components add to logits; none if no single token decides an answer."""
    if found is None:
        return {}
    return make_gallery(component_plots.increment_figures(found, cfg, task))


def mlp_weights(weights: StateDict, cfg: HookedTransformerConfig) -> Gallery:
    """Pictures of each MLP's W_in and W_out; none for a model without MLPs or with large ones."""
    small = has_small_mlps(cfg)
    return make_gallery(component_plots.mlp_weight_figures(weights, cfg) if small else {})


def has_small_mlps(cfg: HookedTransformerConfig) -> bool:
    """Whether the model has MLPs whose weights are small enough to be drawn."""
    return not cfg.attn_only and cfg.d_model * cfg.d_mlp <= model_findings.MOST_WEIGHTS
