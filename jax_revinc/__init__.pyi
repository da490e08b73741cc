"""Tiny transformers in JAX/Flax: trained fast, hooked like TransformerLens, checked against it."""

from jax_revinc import plots as plots
from jax_revinc.activations.activation_cache import ActivationCache
from jax_revinc.compilation.numerical_settings import numerics
from jax_revinc.components.key_value_cache import TransformerLensKeyValueCache
from jax_revinc.engines.fused.gradient import fused_value_and_grad
from jax_revinc.evaluation import Evaluation, evaluate
from jax_revinc.hooks.hook_names import get_act_name
from jax_revinc.hooks.hook_points import HookPoint
from jax_revinc.model import HookedTransformer
from jax_revinc.training import Run, train
from jax_revinc.weights.factored_matrix import FactoredMatrix
from jax_revinc.weights.svd_interpreter import SVDInterpreter
from revinc import PRESETS, HookedTransformerConfig, ReverseIncrement, TrainConfig, UserError

__all__ = [
    "PRESETS",
    "ActivationCache",
    "Evaluation",
    "FactoredMatrix",
    "HookPoint",
    "HookedTransformer",
    "HookedTransformerConfig",
    "ReverseIncrement",
    "Run",
    "SVDInterpreter",
    "TrainConfig",
    "TransformerLensKeyValueCache",
    "UserError",
    "evaluate",
    "fused_value_and_grad",
    "get_act_name",
    "numerics",
    "train",
]
