"""Tiny transformers in JAX/Flax: trained fast, hooked like TransformerLens, checked against it."""

import importlib
from typing import TYPE_CHECKING

from revinc import PRESETS, HookedTransformerConfig, ReverseIncrement, TrainConfig, UserError

if TYPE_CHECKING:
    from jax_revinc import plots as plots
    from jax_revinc.engines.fused.gradient import fused_value_and_grad
    from jax_revinc.evaluation import Evaluation, evaluate
    from jax_revinc.hooks import ActivationCache, HookPoint, get_act_name
    from jax_revinc.model import HookedTransformer
    from jax_revinc.numerical_settings import numerics
    from jax_revinc.training import Run, train

MODULES = {
    "ActivationCache": "hooks",
    "HookPoint": "hooks",
    "HookedTransformer": "model",
    "Run": "training",
    "Evaluation": "evaluation",
    "evaluate": "evaluation",
    "fused_value_and_grad": "engines.fused.gradient",
    "get_act_name": "hooks",
    "numerics": "numerical_settings",
    "train": "training",
}
"""The module of each public name that needs JAX, and is therefore imported when it is first used."""

__all__ = [
    "PRESETS",
    "ActivationCache",
    "Evaluation",
    "HookPoint",
    "HookedTransformer",
    "HookedTransformerConfig",
    "ReverseIncrement",
    "Run",
    "TrainConfig",
    "UserError",
    "evaluate",
    "fused_value_and_grad",
    "get_act_name",
    "numerics",
    "train",
]

if not TYPE_CHECKING:

    def __getattr__(name):
        if name == "plots":
            return importlib.import_module("jax_revinc.plots")
        if name in MODULES:
            return getattr(importlib.import_module(f"jax_revinc.{MODULES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
