"""Tiny transformers in JAX/Flax: trained fast, hooked like TransformerLens, checked against it."""

import importlib
from types import ModuleType

from jax_revinc.engines.fused.gradient import fused_value_and_grad
from jax_revinc.hooks import ActivationCache, HookPoint, get_act_name
from jax_revinc.model import HookedTransformer
from jax_revinc.numerics import numerics
from jax_revinc.training import Run, train
from revinc import PRESETS, HookedTransformerConfig, ReverseIncrement, TrainConfig, UserError

__all__ = [
    "PRESETS",
    "ActivationCache",
    "HookPoint",
    "HookedTransformer",
    "HookedTransformerConfig",
    "ReverseIncrement",
    "Run",
    "TrainConfig",
    "UserError",
    "fused_value_and_grad",
    "get_act_name",
    "numerics",
    "train",
]


def __getattr__(name: str) -> ModuleType:
    """Import `jax_revinc.plots` when it is first used: Plotly takes long to import."""
    if name == "plots":
        return importlib.import_module("jax_revinc.plots")
    raise AttributeError(f"module 'jax_revinc' has no attribute {name!r}")
