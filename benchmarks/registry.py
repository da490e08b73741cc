"""Every contender: what it is called, how it is made, and why it can't run here if it can't."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

import torch

from benchmarks.contender import Contender
from jax_revinc.engines.fused.compiler import CannotBuild, find_compiler
from jax_revinc.engines.population import FUSED_WIDTH
from revinc.cores import usable_cores

HERE = "benchmarks.contenders"

ALL_THREADS = torch.get_num_threads()
"""What torch takes by itself; asked before anyone tells it otherwise."""

UNTRAINED_IN_4 = "unembed.b_U"
"""A buffer in TransformerLens 4.x, so its training is held against one that leaves it alone."""


@dataclass(frozen=True)
class Widths:
    """Models side by side: of torch's ensembles, of JAX on one device, and of JAX on each of several."""

    torch: tuple[int, ...]
    jax: tuple[int, ...]
    jax_each: tuple[int, ...]


FULL = Widths((32, 256, 1024), (1, 8, 32, 64, 128, 256, 512, 1024), (32, 128, 512))
QUICK = Widths((128,), (8, 128), (64,))
ON_GPU = (4096, 16384, 65536)
"""Widths that a GPU, or several, is asked for as well."""

IN_SWEEPS = ("torch-eager", "jax-loop", "jax-population")
WIDTH_IN_SWEEPS = 128


def all_contenders(quick: bool = False) -> list[Contender]:
    """Those of this machine and environment, in the order of the tables. A quick one has fewer widths."""
    widths = QUICK if quick else FULL
    on_gpu = ON_GPU if torch.cuda.is_available() and not quick else ()
    threads = sorted({1, ALL_THREADS}, reverse=True)
    n_devices = torch.cuda.device_count() or usable_cores()
    compiler = no_compiler()
    return [
        *(tutorial_loop(world, n) for world in ("3", "4") for n in threads),
        *(
            Contender(
                "torch-eager",
                f"plain torch module, fused AdamW, {in_words(n, 'thread')}",
                f"{HERE}.torch_module:Eager",
                "torch",
                options={"threads": n},
            )
            for n in threads
        ),
        *([] if quick else [compiled_loss(compiler)]),  # half a minute of compiling
        Contender(
            "torch-compiled",
            "torch.compile of the whole step, 1 thread",
            f"{HERE}.torch_ensemble:CompiledEnsemble",
            "torch",
            options={"threads": 1},
            missing=compiler,
            may_fail=True,
        ),
        Contender(
            "cuda-graph",
            "plain torch module in a CUDA graph",
            f"{HERE}.cuda_graph:CudaGraph",
            "torch",
            missing="" if torch.cuda.is_available() else "torch sees no CUDA device",
        ),
        *(
            Contender(
                "torch-ensemble",
                f"torch.func.vmap, eager, {in_words(ALL_THREADS, 'thread')}",
                f"{HERE}.torch_ensemble:EagerEnsemble",
                "torch",
                width,
                options={"threads": ALL_THREADS},
            )
            for width in (*widths.torch, *on_gpu)
        ),
        *(
            Contender(
                "torch-ensemble-compiled",
                f"torch.func.vmap, compiled, {in_words(ALL_THREADS, 'thread')}",
                f"{HERE}.torch_ensemble:CompiledEnsemble",
                "torch",
                width,
                options={"threads": ALL_THREADS},
                missing=compiler,
                may_fail=True,
            )
            for width in (*widths.torch, *on_gpu)
        ),
        Contender("jax-step", "JAX, jit per step", f"{HERE}.jax_single:StepByStep", "jax"),
        Contender("jax-loop", "JAX, compiled loop", f"{HERE}.jax_single:CompiledLoop", "jax"),
        *(
            Contender(
                "jax-population",
                "JAX, vmap of the loop, 1 device",
                f"{HERE}.jax_population:Population",
                "jax",
                width,
            )
            for width in (*widths.jax, *on_gpu)
        ),
        *(
            Contender(
                "jax-devices",
                f"JAX, vmap of the loop, {in_words(n_devices, 'device')}",
                f"{HERE}.jax_population:Population",
                "jax",
                width * n_devices,
                options={"devices": n_devices},
            )
            for width in (*widths.jax_each, *on_gpu)
            if n_devices > 1
        ),
        *fused_contenders(quick),
    ]


def fused_contenders(quick: bool) -> list[Contender]:
    """The fused engine: one model, alone or with optax in XLA, and many models on one core and on all."""
    why = no_fused_engine()
    optax = Contender(
        "jax-fused-optax",
        "JAX, fused gradient, optax in XLA's loop",
        f"{HERE}.jax_single:CompiledLoop",
        "jax",
        options={"engine": "optax"},
        missing=why,
    )
    one = dataclasses.replace(
        optax, name="jax-fused-one", title="JAX, fused engine", options={"engine": "fused"}
    )
    cores = sorted({1, usable_cores()}) if hasattr(os, "sched_setaffinity") else [usable_cores()]
    many = [
        Contender(
            "jax-fused",
            f"JAX, fused engine, {in_words(n, 'core')}",
            f"{HERE}.jax_population:Population",
            "jax",
            width,
            options={"engine": "fused", **({"cores": n} if n < usable_cores() else {})},
            missing=why,
        )
        for n in cores
        for width in ((FUSED_WIDTH,) if quick else (128, FUSED_WIDTH))
    ]
    return [optax, one, *many]


def no_fused_engine() -> str:
    """Why the fused engine can't be used here; empty if it may."""
    if torch.cuda.is_available():
        return "it is for CPUs"
    try:
        find_compiler()
    except CannotBuild as why:
        return str(why)
    return ""


def compiled_loss(missing: str) -> Contender:
    """``torch.compile`` as most use it: of the model and its loss, with the optimizer outside."""
    return Contender(
        "torch-compiled-loss",
        "torch.compile of its loss, fused AdamW, 1 thread",
        f"{HERE}.torch_module:Eager",
        "torch",
        options={"threads": 1, "compiled": True},
        missing=missing,
        may_fail=True,
    )


def tutorial_loop(world: str, threads: int) -> Contender:
    """The tutorial's loop on TransformerLens `world`; two of them can't be installed together."""
    name = {"3": "transformer-lens", "4": "transformer-lens-4"}[world]
    version = installed_transformer_lens()
    here = version.split(".")[0] == world
    called = version if here else {"3": "3.9", "4": "4.x"}[world]
    otherwise = f"{version} is" if version else "no other is"
    return Contender(
        name,
        f"TransformerLens {called}, the tutorial's loop, {in_words(threads, 'thread')}",
        f"{HERE}.transformer_lens:TutorialLoop",
        "torch",
        options={"threads": threads},
        frozen=(UNTRAINED_IN_4,) if world == "4" else (),
        missing="" if here else f"not installed here ({otherwise})",
    )


def installed_transformer_lens() -> str:
    """Its version; empty if there is none."""
    try:
        return metadata.version("transformer_lens")
    except metadata.PackageNotFoundError:
        return ""


def no_compiler() -> str:
    """Why ``torch.compile`` can't be used here; empty if it may. (On a GPU it brings its own compiler.)"""
    if torch.cuda.is_available() or any(map(shutil.which, ("c++", "g++", "clang++"))):
        return ""
    return "there is no C++ compiler"


def in_words(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def sweep_contenders(names: Sequence[str]) -> list[Contender]:
    """Those that sweeps compare, if they are among `names`: one of each, on one thread, of one width."""
    eager, loop, population = (
        next(c for c in all_contenders() if c.name == name and c.options.get("threads", 1) == 1)
        for name in IN_SWEEPS
    )
    chosen = (eager, loop, population.as_wide_as(WIDTH_IN_SWEEPS))
    return [contender for contender in chosen if contender.name in names]
