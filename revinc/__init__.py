"""Code that both frameworks share, without JAX or torch: configs, tasks, weights, run folders."""

from revinc.config import TrainConfig
from revinc.errors import UserError
from revinc.model_config import HookedTransformerConfig
from revinc.presets import PRESETS
from revinc.tasks import ReverseIncrement, Task

__all__ = [
    "PRESETS",
    "HookedTransformerConfig",
    "ReverseIncrement",
    "Task",
    "TrainConfig",
    "UserError",
]
