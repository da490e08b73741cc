"""The stages that measure: ways of training the tutorial's model, and a step of grokking."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from benchmarks.contender import Contender
from benchmarks.entrants import measure
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.stages import Findings, Setting, Stage
from benchmarks.progress import progress_bar
from benchmarks.registry import (
    COMPILED_ENSEMBLE,
    COMPILED_LOOP,
    POPULATION,
    cuda_graph,
    in_jax,
    in_torch,
    tutorial_loop,
)
from revinc import TrainConfig

NEEDS_CUDA = "needs CUDA"


def tutorial_contenders(sizes: Sizes) -> list[Contender]:
    """The ways of training the tutorial's model, the references of torch first."""
    compiled = not sizes.dry_run  # on a CPU it takes minutes
    side_by_side = f"torch.func.vmap, {'compiled' if compiled else 'not compiled'}"
    options = {"threads": 1, "compiled": compiled}
    return [
        # The dry run starts it in the stage of grokking, once.
        *([] if sizes.dry_run else [tutorial_loop(sizes.tutorial, "3", threads=1)]),
        cuda_graph(captured=not sizes.dry_run),
        in_torch(
            "torch-ensemble-compiled",
            side_by_side,
            COMPILED_ENSEMBLE,
            options,
            width=sizes.torch_width,
        ),
        in_jax("jax-loop", "JAX, compiled loop", COMPILED_LOOP),
        *(
            in_jax("jax-population", "JAX, vmap of the loop", POPULATION, width=width)
            for width in sizes.widths
        ),
    ]


def measure_tutorial(setting: Setting) -> Findings:
    """Time the tutorial's contenders in turn. A CUDA graph is not timed without CUDA."""
    sizes = setting.sizes
    findings = time_in_turn(setting, "tutorial", tutorial_contenders(sizes), sizes.tutorial)
    if not sizes.dry_run:
        return findings
    entries = [
        dataclasses.replace(entry, seconds=[], missing=NEEDS_CUDA)
        if entry.name == "torch-graph"
        else entry
        for entry in findings.entries
    ]
    remarks = [
        f"the CUDA graph was not run: {NEEDS_CUDA}; its step, without a graph, has the right losses",
        "torch.func.vmap was not compiled, which takes minutes on a CPU",
    ]
    return Findings([*findings.remarks, *remarks], entries)


def measure_grokking(setting: Setting) -> Findings:
    """Time a step of grokking in JAX and in TransformerLens, in turn."""
    cfg = setting.sizes.grokking
    contenders = [
        tutorial_loop(cfg, "3", threads=torch.get_num_threads()),
        in_jax("jax-loop", "JAX, compiled loop", COMPILED_LOOP),
    ]
    return time_in_turn(setting, "grokking", contenders, cfg)


def time_in_turn(
    setting: Setting, name: str, contenders: Sequence[Contender], cfg: TrainConfig
) -> Findings:
    """Time contenders in turn, after a check that they do the same training."""
    effort, home = setting.sizes.effort, setting.home / name
    home.mkdir()
    n_steps = sum(map(effort.steps_of, contenders)) + 1
    with progress_bar(setting.console, name, n_steps) as follow:
        entries = measure(contenders, cfg, effort, home, follow)
    return Findings([f"times are medians over {effort.rounds} rounds, in turn"], entries)


TABLE = Stage("table", "times ways of training the tutorial's model, in turn", measure_tutorial)
GROKKING = Stage("grokking", "times a step of grokking, in turn", measure_grokking)
