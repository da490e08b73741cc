"""Arrays of any library as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_array(value: Any) -> np.ndarray:
    """Convert a value to a numpy array; ``np.array(None)`` if it can't be converted.

    Args:
        value: an array of numpy or JAX, a tensor or Parameter of torch on any device, or nested
            lists of numbers. A tensor of a type that numpy lacks, such as bfloat16, becomes float32.
    """
    try:
        return tensor_as_array(value) if is_tensor(value) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        return np.array(None)


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of torch, which need not be installed."""
    return all(hasattr(value, method) for method in ("detach", "cpu", "numpy"))


def tensor_as_array(tensor: Any) -> np.ndarray:
    """A torch tensor's values, apart from its gradient and its device."""
    on_host = tensor.detach().cpu()
    try:
        return np.asarray(on_host.numpy())
    except TypeError:
        return np.asarray(on_host.float().numpy())
