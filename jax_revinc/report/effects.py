"""What hangs on each component: what breaks without it, and what it repairs when it is put back, as pictures."""

from __future__ import annotations

import pandas as pd

from jax_revinc.analysis.claims import why_none
from jax_revinc.analysis.evidence import ablation_costs, by_row, edges, recovery, row_labels
from jax_revinc.model import HookedTransformer
from jax_revinc.report import figures
from jax_revinc.report.shell import Gallery
from revinc import Task

PATCHED = {
    "resid_pre": "The residual stream before a layer",
    "attn_out": "What attention adds",
    "mlp_out": "What the MLP adds",
    "z": "What a head fetches",
}


def patching_pictures(model: HookedTransformer, task: Task) -> Gallery:
    """How much of the answers each activation brings back, by position; none where `why_none` has a reason."""
    if why_none(task):
        return {}
    return {
        f"patching-{name}": figures.matrix_picture(
            [by_row(shares)],
            title=PATCHED[name],
            subtitle="share of the answers' margin that comes back",
            axes=("head" if shares.ndim > 2 else "layer", "position"),
            largest=1.0,
            rows=[row_labels(shares)],
            columns=task.position_labels[: shares.shape[1]],
        )
        for name, shares in recovery(model, task).items()
    }


def path_picture(model: HookedTransformer, task: Task) -> Gallery:
    """What is lost of the answers by corrupting each path; none where `why_none` has a reason."""
    if why_none(task):
        return {}
    lost = edges(model, task)
    return {
        "paths": figures.matrix_picture(
            [lost.to_numpy()],
            title="Path by path",
            subtitle="share of the answers' margin lost by corrupting it",
            axes=("written by", "read by"),
            largest=1.0,
            rows=[list(lost.index)],
            columns=list(lost.columns),
        )
    }


def ablation_pictures(model: HookedTransformer, task: Task) -> Gallery:
    """What breaks without each component, by what replaces it; and without each position of each layer."""
    lost = -ablation_costs(model, task)["accuracy_change"]
    at_position = lost.index.get_level_values("kind") == "position"
    by_method = lost[~at_position].unstack("method", sort=False)
    positions = lost[at_position].xs("mean", level="method").unstack("part", sort=False)
    return {
        "ablation": figures.matrix_picture(
            [by_method.to_numpy(dtype=float)],
            title="Without a component",
            subtitle="accuracy lost, by what it is replaced by",
            axes=("component", "replaced by"),
            largest=1.0,
            rows=[[component_name(hook, part) for _, hook, part in by_method.index]],
            columns=list(by_method.columns),
        ),
        "ablation-position": figures.matrix_picture(
            [positions.to_numpy(dtype=float)],
            title="Without what a position knows",
            subtitle="accuracy lost if the residual stream before a layer is its mean there",
            axes=("layer", "position"),
            largest=1.0,
            rows=[[str(layer) for layer in range(model.cfg.n_layers)]],
            columns=task.position_labels[: positions.shape[1]],
        ),
    }


def component_name(hook: str, part: int | None) -> str:
    """A component's hook in few words, such as "L0 hook_z 1"."""
    *place, name = hook.split(".")
    layer = f"L{place[1]} " if place[0] == "blocks" else "final "
    norm = f"{place[-1]} " if place[-1].startswith("ln") and place[-1] != "ln_final" else ""
    return f"{layer}{norm}{name.removeprefix('hook_')}" + ("" if pd.isna(part) else f" {part}")


def effect_pictures(model: HookedTransformer, task: Task) -> Gallery:
    """All of these pictures."""
    return (
        patching_pictures(model, task) | path_picture(model, task) | ablation_pictures(model, task)
    )
