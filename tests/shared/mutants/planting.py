"""How a fault is described, and how it is planted."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import jax
import jax.numpy as jnp
import pytest
from model_family import case, recipe

from jax_revinc import components, model
from jax_revinc.engines import fused_engine
from jax_revinc.engines.fused import kept_sources
from jax_revinc.hooks import taps
from revinc import HookedTransformerConfig, TrainConfig

COMPONENTS = tuple(
    importlib.import_module(f"{components.__name__}.{found.name}")
    for found in pkgutil.iter_modules(components.__path__)
)
"""The modules of the model's parts."""

PACKAGES = ("revinc", "jax_revinc", "torch_reference", "parity")

MODEL = TrainConfig().model.replace(n_layers=1, n_heads=2, dtype="float64")
RECIPE = TrainConfig(steps=24, model=MODEL)
"""What a fault is judged by if another model or recipe is not named."""


def training(model: HookedTransformerConfig) -> TrainConfig:
    """The recipe of a model."""
    return recipe(model, steps=RECIPE.steps)


def family(name: str, **more) -> TrainConfig:
    """The recipe of a named case of the family of models."""
    return training(case(name, **more))


SQUARE = training(MODEL.replace(d_head=4))


@dataclass(frozen=True)
class Mutant:
    """A fault: in one of `modules`, `old` reads `new`. Judged by `recipe`, `level` is the first that sees it, and `place` where."""

    fault: str
    kind: str
    modules: tuple[ModuleType, ...]
    old: str
    new: str
    recipe: TrainConfig
    level: str
    place: str


def planting(kind: str, *modules: ModuleType) -> Callable[..., Mutant]:
    """A function that describes a fault in a module; the level that sees it is named, as in ``L1="hook_embed"``."""

    def plant(fault: str, old: str, new: str, recipe: TrainConfig = RECIPE, **found: str) -> Mutant:
        ((level, place),) = found.items()
        return Mutant(fault, kind, modules, old, new, recipe, level, place)

    return plant


part = planting("model", *COMPONENTS)
whole = planting("model", model)
tap = planting("model", taps)


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Within it, a copy of the module with the fault stands in for it, wherever it was imported to.

    A fault may speak of `jax` and `jnp`, whatever its module imports.
    """
    sources = {module: inspect.getsource(module) for module in mutant.modules}
    where = [module for module, source in sources.items() for _ in range(source.count(mutant.old))]
    assert len(where) == 1, f"{mutant.old!r} stands {len(where)} times, not once"
    (module,) = where
    wrong = ModuleType(module.__name__)
    vars(wrong).update(jax=jax, jnp=jnp)
    source = sources[module].replace(mutant.old, mutant.new)
    exec(compile(source, str(module.__file__), "exec"), vars(wrong))
    users = [m for name, m in list(sys.modules.items()) if name.split(".")[0] in PACKAGES]
    right = {name: value for name, value in vars(module).items() if not name.startswith("__")}
    forget(users)
    with pytest.MonkeyPatch.context() as patch:
        # Sources are kept by a hash of the files, which know nothing of the fault.
        patch.setattr(fused_engine, "keep_for", lambda *_: kept_sources.make)
        for name, value in right.items():
            for user in users:
                if vars(user).get(name) is value:
                    patch.setattr(user, name, vars(wrong)[name])
        yield
    forget(users)


def forget(modules: list[ModuleType]) -> None:
    """Empty the caches of all functions, Python's and jit's: what they hold was made by other source."""
    for module in modules:
        for value in vars(module).values():
            for clear in ("cache_clear", "clear_cache"):
                getattr(value, clear, lambda: None)()
