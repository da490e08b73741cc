"""The tutorial's own program on TransformerLens, as a library and a command. It never sees JAX."""

from torch_reference.engine import TorchEngine
from torch_reference.installed import adapter
from torch_reference.training import train

__all__ = ["TorchEngine", "adapter", "train"]
