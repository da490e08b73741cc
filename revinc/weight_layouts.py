"""Weights in other layouts than TransformerLens': recognised in errors, converted on request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from revinc.errors import UserError
from revinc.foreign_arrays import as_array

ALWAYS = "embed.W_E"
"""A parameter that every model has."""

TRANSPOSED = (ALWAYS, ".attn.W_Q", ".attn.W_K", ".attn.W_V", ".mlp.W_in", ".mlp.W_out")
"""Ends of the names of weights whose last two axes the grokking checkpoints have swapped."""

W_Q, W_O = ".attn.W_Q", ".attn.W_O"


def layout_hint(shapes: Mapping[Any, tuple[int, ...]]) -> str:
    """What to do with weights that are in a known layout other than TransformerLens', or ``""``.

    Args:
        shapes: the shapes of the weights, by name.
    """
    if prefix := common_prefix(shapes):
        return (
            f"its names start with {prefix!r}; remove it: "
            f"{{name.removeprefix({prefix!r}): w for name, w in weights.items()}}"
        )
    if in_grokking_layout(shapes):
        return (
            "it is in the layout of the grokking checkpoints, W_O [d_model, head * d_head]; convert "
            "it by revinc.weight_layouts.from_grokking_layout(weights)"
        )
    return ""


def common_prefix(names: Mapping[Any, Any]) -> str:
    """What a wrapper such as torch.compile put before every name, as ``_orig_mod.``, or ``""``."""
    wrapped = (name for name in names if isinstance(name, str) and name.endswith(f".{ALWAYS}"))
    return "" if ALWAYS in names else next(wrapped, "").removesuffix(ALWAYS)


def place_of_weights(checkpoint: Mapping[Any, Any]) -> str:
    """The index of a nested checkpoint at which the weights are, as ``['model']``, or ``""``."""
    for key, part in checkpoint.items():
        if isinstance(part, Mapping):
            if ALWAYS in part or common_prefix(part):
                return f"[{key!r}]"
            if deeper := place_of_weights(part):
                return f"[{key!r}]{deeper}"
    return ""


def require_by_name(state_dict: Any, source: str = "the state dict") -> None:
    """Raise a UserError unless weights are given by name, not nested in a checkpoint.

    Args:
        state_dict: what was given as weights by name.
        source: where it comes from, for the error.
    """
    if not isinstance(state_dict, Mapping):
        raise UserError(f"{source} must hold arrays by name, not be a {type(state_dict).__name__}")
    if place := place_of_weights(state_dict):
        raise UserError(
            f"{source} is a checkpoint that holds the weights at {place}; give checkpoint{place}"
        )


def in_grokking_layout(shapes: Mapping[Any, tuple[int, ...]]) -> bool:
    """Whether weights are in the layout of the grokking checkpoints, by the shape of some W_O."""
    return any(
        len(shapes.get(_beside(name, W_O, W_Q), ())) == 3
        and shape == _output_shape(shapes[_beside(name, W_O, W_Q)])
        for name, shape in shapes.items()
        if isinstance(name, str) and name.endswith(W_O)
    )


def from_grokking_layout(weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Convert weights of the older grokking checkpoints to TransformerLens' names and shapes.

    That is the layout of the code of Nanda et al. 2023, "Progress measures for grokking via
    mechanistic interpretability": W_E [d_model, d_vocab]; W_Q, W_K, W_V [head, d_head, d_model]; W_O
    [d_model, head * d_head]; W_in [d_mlp, d_model]; W_out [d_model, d_mlp]. Attention and
    unembedding have no biases there; they become zeros. Such a model has
    ``normalization_type=None``.

    Args:
        weights: arrays or torch tensors by name.

    Raises:
        UserError: if the weights are not in that layout.
    """
    require_by_name(weights, "weights")
    arrays = {name: as_array(weight) for name, weight in weights.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if common_prefix(shapes):
        raise UserError(f"the names of weights do not fit: {layout_hint(shapes)}")
    if not in_grokking_layout(shapes):
        raise UserError(
            "weights are not in the layout of the grokking checkpoints, which have an attention "
            "with W_Q [head, d_head, d_model] and W_O [d_model, head * d_head]; load them as they are"
        )
    converted = {
        name: array.swapaxes(-1, -2) if array.ndim > 1 and name.endswith(TRANSPOSED) else array
        for name, array in arrays.items()
    }
    for name, array in arrays.items():
        if name.endswith(W_O):
            n_heads, d_head, d_model = shapes[_beside(name, W_O, W_Q)]
            converted[name] = array.T.reshape(n_heads, d_head, d_model)
            biases = dict.fromkeys(("b_Q", "b_K", "b_V"), (n_heads, d_head)) | {"b_O": (d_model,)}
            for bias, shape in biases.items():
                converted.setdefault(name.removesuffix("W_O") + bias, np.zeros(shape, array.dtype))
        elif name == "unembed.W_U":
            converted.setdefault("unembed.b_U", np.zeros(array.shape[-1], array.dtype))
    return converted


def _beside(name: str, end: str, other: str) -> str:
    """The name of a weight beside another of the same layer."""
    return name.removesuffix(end) + other


def _output_shape(of_queries: tuple[int, ...]) -> tuple[int, int]:
    """The shape of W_O in the grokking checkpoints, by that of W_Q [head, d_head, d_model]."""
    n_heads, d_head, d_model = of_queries
    return (d_model, n_heads * d_head)
