"""The list of contenders: names, how each is made, and why one can't run on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch

from benchmarks.contender import Contender
from benchmarks.contenders.torch_module import why_not
from jax_revinc.engines.fused.errors import CannotBuild
from jax_revinc.engines.fused.toolchain import find_compiler
from jax_revinc.engines.many_models import FUSED_WIDTH
from revinc import PRESETS, TrainConfig
from revinc.cpu_cores import usable_cores
from torch_reference.optimizer import COUNTERPARTS

TUTORIAL = PRESETS["tutorial"]
HERE = "benchmarks.contenders"
EAGER = "torch_module:Eager"
EAGER_ENSEMBLE = "torch_ensemble:EagerEnsemble"
COMPILED_ENSEMBLE = "torch_ensemble:CompiledEnsemble"
GRAPHED_STEP = "torch_graph:GraphedStep"
STEP_BY_STEP = "jax_single:StepByStep"
COMPILED_LOOP = "jax_single:CompiledLoop"
POPULATION = "jax_population:PopulationTrainer"

ALL_THREADS = torch.get_num_threads()
"""torch's default, read before anything changes it."""

UNTRAINED_IN_4 = "unembed.b_U"
"""A buffer in TransformerLens 4.x: its losses are compared with a training that freezes it."""


@dataclass(frozen=True)
class Widths:
    """Models side by side: in torch's ensembles, in JAX on one device, and on each of several."""

    torch: tuple[int, ...]
    jax: tuple[int, ...]
    jax_each: tuple[int, ...]


FULL = Widths((32, 256, 1024), (1, 8, 32, 64, 128, 256, 512, 1024), (32, 128, 512))
QUICK = Widths((128,), (8, 128), (64,))
ON_GPU = (4096, 16384, 65536)
"""More widths on a GPU."""

IN_SWEEPS = ("torch-eager", "jax-loop", "jax-population")
WIDTH_IN_SWEEPS = 128


def all_contenders(cfg: TrainConfig = TUTORIAL, quick: bool = False) -> list[Contender]:
    """All contenders on this machine, in the order of the tables.

    Args:
        cfg: the training config; a contender that can't train it says why.
        quick: whether there are fewer widths.
    """
    widths = QUICK if quick else FULL
    on_gpu = ON_GPU if torch.cuda.is_available() and not quick else ()
    threads = sorted({1, ALL_THREADS}, reverse=True)
    n_devices = torch.cuda.device_count() or usable_cores()
    not_plain = why_not(cfg)
    needs_compiler: dict[str, Any] = {"missing": not_plain or no_compiler(), "may_fail": True}
    all_threads = in_words(ALL_THREADS, "thread")

    contenders = [tutorial_loop(cfg, world, n) for world in ("3", "4") for n in threads]
    for n in threads:
        title = f"plain torch module, fused AdamW, {in_words(n, 'thread')}"
        contenders.append(in_torch("torch-eager", title, EAGER, {"threads": n}, missing=not_plain))
    if not quick:  # half a minute of compiling
        title = "torch.compile of its loss, fused AdamW, 1 thread"
        options = {"threads": 1, "compiled": True}
        contenders.append(in_torch("torch-compiled-loss", title, EAGER, options, **needs_compiler))
    title = "torch.compile of the whole step, 1 thread"
    contenders.append(
        in_torch("torch-compiled", title, COMPILED_ENSEMBLE, {"threads": 1}, **needs_compiler)
    )
    if torch.cuda.is_available():
        contenders.append(cuda_graph(missing=not_plain))
    for name, how, make, more in (
        ("torch-ensemble", "eager", EAGER_ENSEMBLE, {"missing": not_plain}),
        ("torch-ensemble-compiled", "compiled", COMPILED_ENSEMBLE, needs_compiler),
    ):
        title = f"torch.func.vmap, {how}, {all_threads}"
        contenders += [
            in_torch(name, title, make, {"threads": ALL_THREADS}, width=width, **more)
            for width in (*widths.torch, *on_gpu)
        ]
    contenders += [
        in_jax("jax-step", "JAX, jit per step", STEP_BY_STEP),
        in_jax("jax-loop", "JAX, compiled loop", COMPILED_LOOP),
    ]
    title = "JAX, vmap of the loop, 1 device"
    contenders += [
        in_jax("jax-population", title, POPULATION, width=width) for width in (*widths.jax, *on_gpu)
    ]
    if n_devices > 1:
        title = f"JAX, vmap of the loop, {in_words(n_devices, 'device')}"
        options = {"devices": n_devices}
        contenders += [
            in_jax("jax-devices", title, POPULATION, options, width=width * n_devices)
            for width in (*widths.jax_each, *on_gpu)
        ]
    return contenders + fused_contenders(quick)


def in_torch(
    name: str, title: str, make: str, options: Mapping[str, Any], **more: Any
) -> Contender:
    """A contender that runs on torch."""
    return Contender(name, title, f"{HERE}.{make}", "torch", options=options, **more)


def in_jax(
    name: str, title: str, make: str, options: Mapping[str, Any] | None = None, **more: Any
) -> Contender:
    """A contender that runs on JAX."""
    return Contender(name, title, f"{HERE}.{make}", "jax", options=options or {}, **more)


def cuda_graph(captured: bool = True, missing: str = "") -> Contender:
    """The plain torch module's step as a CUDA graph; without CUDA it can run only uncaptured."""
    options = {"threads": 1, "captured": captured}
    return in_torch(
        "torch-graph",
        "a CUDA graph of the plain torch step",
        GRAPHED_STEP,
        options,
        missing=missing,
    )


def fused_contenders(quick: bool) -> list[Contender]:
    """The fused engine: one model, also with optax in XLA; many models, on one core and on all."""
    why, all_cores = no_fused_engine(), usable_cores()
    more: dict[str, Any] = {"missing": why, "may_fail": True}  # it does not support every model
    contenders = [
        in_jax(name, title, COMPILED_LOOP, {"engine": engine}, **more)
        for name, title, engine in (
            ("jax-fused-optax", "JAX, fused gradient, optax in XLA's loop", "optax"),
            ("jax-fused-one", "JAX, fused engine", "fused"),
        )
    ]
    cores = sorted({1, all_cores}) if hasattr(os, "sched_setaffinity") else [all_cores]
    for n in cores:
        title = f"JAX, fused engine, {in_words(n, 'core')}"
        options = {"engine": "fused", **({"cores": n} if n < all_cores else {})}
        contenders += [
            in_jax("jax-fused", title, POPULATION, options, width=width, **more)
            for width in ((FUSED_WIDTH,) if quick else (128, FUSED_WIDTH))
        ]
    return contenders


def no_fused_engine() -> str:
    """Why the fused engine can't be used here; empty if it can."""
    if torch.cuda.is_available():
        return "it is for CPUs"
    try:
        find_compiler()
    except CannotBuild as why:
        return str(why)
    return ""


def tutorial_loop(cfg: TrainConfig, world: str, threads: int) -> Contender:
    """The tutorial's loop on TransformerLens `world`, 3 or 4; only one can be installed."""
    name = {"3": "transformer-lens", "4": "transformer-lens-4"}[world]
    version = installed_transformer_lens()
    here = version.split(".")[0] == world
    called = version if here else {"3": "3.9", "4": "4.x"}[world]
    otherwise = f"{version} is" if version else "no other is"
    missing = "" if here else f"not installed here ({otherwise})"
    if cfg.optimizer not in COUNTERPARTS:
        missing = missing or f"torch has no {cfg.optimizer}"
    return in_torch(
        name,
        f"TransformerLens {called}, the tutorial's loop, {in_words(threads, 'thread')}",
        "transformer_lens:TutorialLoop",
        {"threads": threads},
        frozen=(UNTRAINED_IN_4,) if world == "4" else (),
        missing=missing,
    )


def installed_transformer_lens() -> str:
    """The version of TransformerLens; empty if it is not installed."""
    try:
        return metadata.version("transformer_lens")
    except metadata.PackageNotFoundError:
        return ""


def no_compiler() -> str:
    """Why ``torch.compile`` can't be used here; empty if it can. (A GPU needs no C++ compiler.)"""
    if torch.cuda.is_available() or any(map(shutil.which, ("c++", "g++", "clang++"))):
        return ""
    return "there is no C++ compiler"


def in_words(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def sweep_contenders(names: Sequence[str]) -> list[Contender]:
    """The contenders of sweeps among `names`: one of each, on one thread, of one width."""
    eager, loop, population = (
        next(c for c in all_contenders() if c.name == name and c.options.get("threads", 1) == 1)
        for name in IN_SWEEPS
    )
    chosen = (eager, loop, population.as_wide_as(WIDTH_IN_SWEEPS))
    return [contender for contender in chosen if contender.name in names]
