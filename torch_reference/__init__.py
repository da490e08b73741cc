"""The tutorial's own program on TransformerLens 3.9, as a library and a command. It never sees JAX."""

from torch_reference.engine import TorchEngine
from torch_reference.model import make_model, read_weights, write_weights
from torch_reference.training import train

__all__ = ["TorchEngine", "make_model", "read_weights", "train", "write_weights"]
