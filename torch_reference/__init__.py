"""The reference that JAX is compared with: the tutorial's program in torch and TransformerLens."""

from torch_reference.engine import TorchEngine
from torch_reference.installed_transformer_lens import adapter
from torch_reference.training import train

__all__ = ["TorchEngine", "adapter", "train"]
