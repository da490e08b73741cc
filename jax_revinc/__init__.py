"""Tiny transformers in JAX/Flax: trained fast, hooked like TransformerLens, provably the same model."""

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
