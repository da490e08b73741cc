"""Slices of an axis, as TransformerLens writes them: an int drops the axis, a tuple is a range."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax import Array
from jaxtyping import Int

from jax_revinc.compilation.numerical_settings import keeps_precision
from revinc.errors import UserError, shown


class Slice:
    """Elements of an axis to keep, as `transformer_lens.utils.Slice`.

    Args:
        input_slice: an int, which drops the axis; a tuple of a slice's arguments, or a slice; a
            list or an array of indices, or of booleans; or None, which keeps all. The array may be
            traced; its elements can't be checked then, and JAX takes the nearest index that exists.

    Attributes:
        slice: the int, the slice or the array.
        mode: "int", "slice", "array" or "identity".

    Raises:
        UserError: for anything else.
    """

    mode: str
    slice: Any

    def __init__(self, input_slice: SliceInput = None) -> None:
        if isinstance(input_slice, Slice):
            self.mode, self.slice = input_slice.mode, input_slice.slice
            return
        try:
            self.mode, self.slice = mode_and_index(input_slice)
        except (TypeError, ValueError):
            raise UserError(
                f"invalid slice {shown(input_slice)}: give an int, a tuple of a slice's arguments, "
                "a list or an array of integers, or None"
            ) from None

    @property
    def drops_axis(self) -> bool:
        """Whether the axis is dropped: this is an int, or a traced one."""
        return self.mode in ("int", "array") and np.ndim(self.slice) == 0

    @keeps_precision
    def apply(self, tensor: Any, dim: int = 0, what: str = "index") -> Any:
        """The elements of `tensor` along the axis `dim` that this slice keeps.

        Args:
            tensor: an array.
            dim: an axis; a negative one counts from the last.
            what: what the axis counts, for the error.

        Raises:
            UserError: if an element does not exist.
        """
        if self.mode == "identity":
            return tensor
        axis = dim % tensor.ndim
        before: tuple[Any, ...] = (builtins.slice(None),) * axis
        return tensor[(*before, self.checked(tensor.shape[axis], what))]

    def indices(self, max_ctx: int | None = None) -> Int[np.ndarray, " kept"]:
        """The indices that this slice keeps of an axis; an array of one if it is an int.

        Args:
            max_ctx: the size of the axis, which only an int does not need.

        Raises:
            UserError: if `max_ctx` is missing, or an index does not exist.
        """
        if self.mode == "int":
            return np.array([self.slice], dtype=np.int64)
        if max_ctx is None:
            raise UserError("max_ctx must be given, unless the slice is an int")
        return np.arange(max_ctx, dtype=np.int64)[self.checked(max_ctx, "index")]

    def checked(self, size: int, what: str) -> Any:
        """What to index an axis of `size` with, after a check that every element exists."""
        if self.mode in ("identity", "slice") or isinstance(self.slice, jax.core.Tracer):
            return self.slice
        try:
            kept = np.arange(size)[self.slice]
        except IndexError:
            raise UserError(
                f"the {what} {shown_index(self.slice)} does not exist; choose among 0..{size - 1}"
            ) from None
        return int(kept) if self.mode == "int" else kept

    @classmethod
    def unwrap(cls, slice_input: SliceInput) -> Slice:
        """The `Slice` of any input; an int becomes a list of one, so that the axis stays."""
        found = cls(slice_input)
        keeps_axis = found.mode != "int" or isinstance(slice_input, Slice)
        return found if keeps_axis else cls([found.slice])

    def __repr__(self) -> str:
        return f"Slice: {self.slice} Mode: {self.mode} "


def mode_and_index(given: Any) -> tuple[str, Any]:
    """The mode of a slice, and what it indexes an axis with.

    Raises:
        TypeError, ValueError: if `given` is no slice.
    """
    if given is None:
        return "identity", builtins.slice(None)
    if isinstance(given, tuple):
        given = builtins.slice(*given)
    if isinstance(given, builtins.slice):
        np.arange(1)[given]  # raises unless its arguments are integers
        return "slice", given
    if isinstance(given, jax.core.Tracer):
        if not np.issubdtype(given.dtype, np.integer) or given.ndim > 1:
            raise TypeError
        return "array", given
    index = np.asarray(given)
    if not index.size and index.ndim == 1:
        index = index.astype(int)
    if index.ndim == 1 and index.dtype.kind in "iub":
        return "array", index
    if index.ndim == 0 and index.dtype.kind in "iu":
        return "int", operator.index(index.item())
    raise TypeError


def shown_index(index: Any) -> str:
    """An index or a list of them, for an error."""
    return shown(index.tolist() if isinstance(index, np.ndarray) else index)


SliceInput: TypeAlias = (
    int | tuple[int | None, ...] | slice | Sequence[int] | np.ndarray | Array | Slice | None
)
"""The elements of an axis to keep, as in TransformerLens.

An int drops the axis, a tuple is a slice's arguments ((1, 4) keeps 1, 2, 3), a list or an array
holds indices or a mask, None keeps all.
"""
