"""What `transformer_lens.utils` has for arrays, under the same names.

What it has for text, devices and downloads is not for toy models. Random draws take a key, and
functions that would fill an array in place return a new one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.compilation.numerical_settings import keeps_precision
from jax_revinc.components.attention_scores import make_soft_cap
from jax_revinc.components.mlp import ACTIVATIONS
from jax_revinc.components.params import within
from jax_revinc.forward.next_token import lm_accuracy, lm_cross_entropy_loss
from jax_revinc.forward.sampling import logits_to_df, sample_logits
from jax_revinc.hooks.hook_names import get_act_name
from jax_revinc.slices import Slice, SliceInput
from jax_revinc.weights.composition import composition_scores
from jax_revinc.weights.factored_matrix import FactoredMatrix
from jax_revinc.weights.weight_draws import (
    NonlinearityType,
    calc_fan_in_and_fan_out,
    init_kaiming_normal_,
    init_kaiming_uniform_,
    init_xavier_normal_,
    init_xavier_uniform_,
)
from revinc.errors import UserError

__all__ = [
    "SOFTCAP_DISABLED",
    "SUPPORTED_ACTIVATIONS",
    "ActivationFunction",
    "NonlinearityType",
    "Slice",
    "SliceInput",
    "apply_softcap",
    "calc_fan_in_and_fan_out",
    "check_structure",
    "composition_scores",
    "filter_dict_by_prefix",
    "gelu_fast",
    "gelu_new",
    "get_act_name",
    "get_corner",
    "get_cumsum_along_dim",
    "get_matrix_corner",
    "get_nested_attr",
    "get_offset_position_ids",
    "init_kaiming_normal_",
    "init_kaiming_uniform_",
    "init_xavier_normal_",
    "init_xavier_uniform_",
    "is_lower_triangular",
    "is_square",
    "lm_accuracy",
    "lm_cross_entropy_loss",
    "logits_to_df",
    "remove_batch_dim",
    "repeat_along_head_dimension",
    "sample_logits",
    "softcap_enabled",
    "solu",
    "to_numpy",
    "transpose",
]

T = TypeVar("T")
ActivationFunction = Callable[..., Array]

SUPPORTED_ACTIVATIONS: dict[str, ActivationFunction] = {
    name: keeps_precision(function) for name, function in ACTIVATIONS.items()
}
"""Every activation function by the name that `act_fn` of a config has for it."""

gelu_new = SUPPORTED_ACTIVATIONS["gelu_new"]
gelu_fast = SUPPORTED_ACTIVATIONS["gelu_fast"]
solu = SUPPORTED_ACTIVATIONS["solu"]

SOFTCAP_DISABLED = -1.0
"""A soft cap that caps nothing."""


def softcap_enabled(cap: float | None) -> bool:
    """Whether a soft cap has an effect: it is above 0."""
    return cap is not None and cap > 0


@keeps_precision
def apply_softcap(x: Float[Array, "*shape"], cap: float | None) -> Float[Array, "*shape"]:
    """``cap * tanh(x / cap)``, or `x` if the cap has no effect."""
    return make_soft_cap(cap if softcap_enabled(cap) else None)(jnp.asarray(x))


def to_numpy(tensor: Any) -> np.ndarray:
    """An array, a number, a list or a tuple as a numpy array; bfloat16 as float32.

    Raises:
        UserError: for anything else, and for traced arrays, which have no values.
    """
    if isinstance(tensor, jax.core.Tracer):
        raise UserError("a traced array has no values; call to_numpy outside jit, vmap and grad")
    if not isinstance(tensor, list | tuple | int | float | str) and not hasattr(tensor, "shape"):
        raise UserError(f"to_numpy takes an array or a number, not a {type(tensor).__name__}")
    array = np.asarray(tensor)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def get_corner(tensor: Any, n: int = 3) -> Any:
    """The first `n` entries of an array along every axis."""
    return tensor[(slice(n),) * tensor.ndim]


def get_matrix_corner(matrix: FactoredMatrix, n: int = 3) -> Float[Array, ...]:
    """The first `n` entries of a product along every axis, multiplied out."""
    return matrix.get_corner(n)


def remove_batch_dim(tensor: Any) -> Any:
    """The array without its first axis if that has size 1; else the array."""
    return tensor[0] if tensor.shape[0] == 1 else tensor


def transpose(tensor: Any) -> Any:
    """The array with its last two axes swapped."""
    return tensor.mT


def is_square(x: Any) -> bool:
    """Whether an array is one square matrix."""
    return x.ndim == 2 and x.shape[0] == x.shape[1]


def is_lower_triangular(x: Any) -> bool:
    """Whether an array is one square matrix without entries above the diagonal."""
    return is_square(x) and not np.triu(np.asarray(x), 1).any()


def check_structure(t1: Any, t2: Any, *, verbose: bool = False) -> None:
    """Print whether neighbouring entries of two matrices compare alike, by rows and by columns.

    Args:
        t1: a matrix.
        t2: a matrix of the same shape.
        verbose: print the comparisons that differ.

    Raises:
        UserError: if they are not matrices of one shape.
    """
    first, second = np.asarray(t1), np.asarray(t2)
    if first.ndim != 2 or first.shape != second.shape:
        raise UserError(
            "check_structure compares two matrices of one shape, not arrays of shapes "
            f"{list(first.shape)} and {list(second.shape)}"
        )
    found: dict[str, list[int]] = {}
    for what, one, other in (("row", first, second), ("column", first.T, second.T)):
        ours, theirs = one[:-1] >= one[1:], other[:-1] >= other[1:]
        found[what] = np.flatnonzero((ours != theirs).any(1)).tolist()
        if verbose:
            print(f"Checking {what}s")
            for i in found[what]:
                print(f"\t{what}s {i}:{i + 1}")
                print(f"\tt1: {ours[i].tolist()}\n\tt2: {theirs[i].tolist()}")
    lines = [f"{what} mismatch: {places}" for what, places in found.items() if places]
    print(lines[0] if lines else "PASSED")


@keeps_precision
def get_cumsum_along_dim(
    tensor: Float[Array, "*shape"], dim: int, reverse: bool = False
) -> Float[Array, "*shape"]:
    """The running sums of an array along the axis `dim`; from its end if `reverse`."""
    tensor = jnp.asarray(tensor)
    return jax.lax.cumsum(tensor, axis=dim % tensor.ndim, reverse=reverse)


def get_offset_position_ids(
    past_kv_pos_offset: int, attention_mask: Int[Array, "batch offset_pos"]
) -> Int[Array, "batch pos"]:
    """The position of each token among those that are no padding, which itself is at position 0.

    Args:
        past_kv_pos_offset: the number of tokens at the start to leave out.
        attention_mask: 0 where there is padding [batch, pos].
    """
    positions = jnp.cumsum(jnp.asarray(attention_mask), axis=1) - 1
    return jnp.maximum(positions, 0)[:, past_kv_pos_offset:]


def repeat_along_head_dimension(
    tensor: Float[Array, "batch pos d_model"], n_heads: int, clone_tensor: bool = True
) -> Float[Array, "batch pos n_heads d_model"]:
    """The array once for each head. `clone_tensor` has no effect: arrays never share memory."""
    del clone_tensor
    batch, pos, d_model = tensor.shape
    return jnp.broadcast_to(tensor[:, :, None], (batch, pos, n_heads, d_model))


def get_nested_attr(obj: Any, attr_str: str) -> Any:
    """The attribute of a dotted name, such as ``blocks.0.attn.W_Q`` of a model.

    Raises:
        AttributeError: if there is none.
    """
    return operator.attrgetter(attr_str)(obj)


def filter_dict_by_prefix(dictionary: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The entries whose names start with `prefix` and a dot, by name without them."""
    return within(dictionary, prefix.removesuffix("."))
