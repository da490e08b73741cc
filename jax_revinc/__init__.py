"""Tiny transformers in JAX/Flax: trained fast, hooked like TransformerLens, checked against it.

Names that need JAX are imported when they are first used. `__init__.pyi` tells tools what they are.
"""

import importlib

from revinc import PRESETS, HookedTransformerConfig, ReverseIncrement, TrainConfig, UserError

MODULES = {
    "ActivationCache": "activations.activation_cache",
    "Evaluation": "evaluation",
    "FactoredMatrix": "weights.factored_matrix",
    "HookPoint": "hooks.hook_points",
    "HookedTransformer": "model",
    "Run": "training",
    "SVDInterpreter": "weights.svd_interpreter",
    "TransformerLensKeyValueCache": "components.key_value_cache",
    "evaluate": "evaluation",
    "fused_value_and_grad": "engines.fused.gradient",
    "get_act_name": "hooks.hook_names",
    "numerics": "compilation.numerical_settings",
    "train": "training",
}
"""The module of each public name that needs JAX."""

__all__ = [
    "PRESETS",
    "HookedTransformerConfig",
    "ReverseIncrement",
    "TrainConfig",
    "UserError",
    *MODULES,
]


def __getattr__(name: str) -> object:
    if name == "plots":
        return importlib.import_module("jax_revinc.plots")
    if name in MODULES:
        return getattr(importlib.import_module(f"jax_revinc.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
