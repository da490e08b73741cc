"""Slices of one axis, as TransformerLens writes them: an int, a tuple, a list, an array or None."""

from __future__ import annotations

import operator
from typing import Any, TypeAlias

import jax
import numpy as np
from jax import Array
from jaxtyping import Int

from jax_revinc.numerical_settings import keeps_precision
from revinc.errors import UserError, shown

SliceInput: TypeAlias = (
    int
    | tuple[int]
    | tuple[int, int]
    | tuple[int, int, int]
    | list[int]
    | slice
    | Array
    | np.ndarray
    | None
)
"""What a `Slice` is made of."""


class Slice:
    """A slice of one axis of an array.

    Args:
        input_slice: an int drops the axis; a tuple holds the arguments of `slice`; a list or an
            array holds positions, or a mask; None keeps everything.

    Attributes:
        slice: what the axis is indexed with.
        mode: "int", "slice", "array" or "identity".

    Raises:
        UserError: for anything else.
    """

    slice: Any
    mode: str

    def __init__(self, input_slice: SliceInput = None) -> None:
        if input_slice is None:
            self.slice, self.mode = slice(None), "identity"
        elif isinstance(input_slice, slice):
            self.slice, self.mode = input_slice, "slice"
        elif isinstance(input_slice, tuple) and 1 <= len(input_slice) <= 3:
            self.slice, self.mode = slice(*input_slice), "slice"
        elif isinstance(input_slice, list | np.ndarray | Array):
            traced = isinstance(input_slice, jax.core.Tracer)
            self.slice, self.mode = input_slice if traced else np.asarray(input_slice), "array"
        else:
            try:
                self.slice, self.mode = operator.index(input_slice), "int"
            except TypeError:
                raise UserError(
                    "a slice is an int, a tuple of a slice's arguments, a list or array of "
                    f"positions, or None, not {shown(input_slice)}"
                ) from None

    @keeps_precision
    def apply(self, tensor: Array | np.ndarray, dim: int = 0) -> Any:
        """The array `tensor` with its axis `dim` sliced.

        Raises:
            UserError: for a position outside the axis, where JAX would take the nearest.
        """
        size = tensor.shape[dim]
        if not isinstance(self.slice, jax.core.Tracer):
            self.indices(size)
        index: list[Any] = [slice(None)] * tensor.ndim
        index[dim] = self.slice
        return tensor[tuple(index)]

    def indices(self, max_ctx: int | None = None) -> Int[np.ndarray, " kept"]:
        """The positions that the slice keeps of an axis of size `max_ctx`.

        Args:
            max_ctx: the size of the axis; an int needs none.

        Raises:
            UserError: if the size is needed and not given, or a position is outside the axis.
        """
        if self.mode == "int" and max_ctx is None:
            return np.array([self.slice], np.int64)
        if max_ctx is None:
            raise UserError("give max_ctx, the size of the axis, for a slice that is no int")
        try:
            kept = np.arange(max_ctx)[self.slice]
        except IndexError:
            raise UserError(
                f"the slice {shown(self.slice)} reaches outside an axis of size {max_ctx}"
            ) from None
        return np.array([self.slice], np.int64) if self.mode == "int" else kept

    @classmethod
    def unwrap(cls, slice_input: Slice | SliceInput) -> Slice:
        """A `Slice` of anything that makes one; an int becomes a list, so that it keeps the axis."""
        if isinstance(slice_input, Slice):
            return slice_input
        return cls([slice_input] if isinstance(slice_input, int) else slice_input)

    def __repr__(self) -> str:
        return f"Slice: {self.slice} Mode: {self.mode} "
