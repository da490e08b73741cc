"""Translate JAX's gather and scatter into computation graphs: an index that is known only at run
time becomes a choice between array elements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.graph import Node, Scalar, Scalars
from jax_revinc.engines.fused.simplify import Algebra, bounds

Index = tuple[int, ...]
Shape = tuple[int, ...]
Arrays = Sequence[Scalars]
EqnParams = dict[str, Any]
"""The parameters of a jaxpr's equation."""


class Candidate(NamedTuple):
    """An array element that an index may select at run time: the one at position `at` is selected
    if the index `start` equals `value`.
    """

    start: Scalar
    value: int
    at: Index


class Windows(NamedTuple):
    """The window sizes and dimension numbers of a JAX gather or scatter. They say which array
    elements a window covers.

    The fields are the windows' sizes in every dimension, and those of
    `jax.lax.GatherDimensionNumbers`.
    """

    sizes: tuple[int, ...]
    offset_dims: tuple[int, ...]
    collapsed_slice_dims: tuple[int, ...]
    start_index_map: tuple[int, ...]
    operand_batching_dims: tuple[int, ...]
    start_indices_batching_dims: tuple[int, ...]

    def elements(
        self, shape: Shape, starts: Scalars, operand_shape: Shape
    ) -> Iterator[tuple[Index, list[Candidate]]]:
        """Yield the position of each window element, and the array elements that it may stand for
        at run time.
        """
        batch_dims = [dim for dim in range(len(shape)) if dim not in self.offset_dims]
        dropped = {*self.collapsed_slice_dims, *self.operand_batching_dims}
        window_dims = [dim for dim in range(len(operand_shape)) if dim not in dropped]
        offsets = list(zip(window_dims, self.offset_dims, strict=True))
        batching = list(
            zip(self.operand_batching_dims, self.start_indices_batching_dims, strict=True)
        )
        for index in np.ndindex(*shape):
            batch = [index[dim] for dim in batch_dims]
            at = [0] * len(operand_shape)
            for dim, offset_dim in offsets:
                at[dim] = index[offset_dim]
            for dim, start_dim in batching:
                at[dim] = batch[start_dim]
            yield index, self._candidates(at, starts[tuple(batch)], operand_shape)

    def _candidates(self, at: list[int], starts: Scalars, operand_shape: Shape) -> list[Candidate]:
        """List the array elements at position `at` plus any value that the run-time indices
        `starts` may have.
        """
        unknown: Scalar = 0
        axis = None
        for dim, start in zip(self.start_index_map, starts, strict=True):
            least, most = bounds(start)
            if least < 0 or most > operand_shape[dim] - self.sizes[dim]:
                raise NotFusible(
                    "the fused engine compiles only array indices that are known to be within "
                    "bounds; an index of this computation may be out of its bounds"
                )
            if not isinstance(start, Node):
                at[dim] += start
            elif axis is None:
                unknown, axis = start, dim
            else:
                raise NotFusible(
                    "the fused engine indexes arrays along one dimension at a time; this "
                    "computation indexes an array along two at once"
                )
        if axis is None:
            return [Candidate(0, 0, tuple(at))]
        least, most = bounds(unknown)
        return [
            Candidate(unknown, value, (*at[:axis], at[axis] + value, *at[axis + 1 :]))
            for value in range(least, most + 1)
        ]


def gather(algebra: Algebra, params: EqnParams, shape: Shape, x: Arrays) -> Arrays:
    """Translate `jax.lax.gather` into choices between array elements. Its `mode` for indices out of
    bounds is ignored, because all indices are known to be within bounds.
    """
    operand, starts = x
    windows = Windows(params["slice_sizes"], *params["dimension_numbers"])
    result = np.empty(shape, object)
    for index, candidates in windows.elements(shape, starts, operand.shape):
        element = operand[candidates[0].at]
        for start, value, at in candidates[1:]:
            element = algebra.select(algebra.compare("eq", start, value), element, operand[at])
        result[index] = element
    return [result]


def scatter_add(algebra: Algebra, params: EqnParams, _: Index, x: Arrays) -> Arrays:
    """Translate `jax.lax.scatter_add`, the transpose of a gather, into conditional additions."""
    operand, starts, updates = x
    numbers = params["dimension_numbers"]
    dropped = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    window_dims = iter(numbers.update_window_dims)
    sizes = tuple(
        1 if dim in dropped else updates.shape[next(window_dims)] for dim in range(operand.ndim)
    )
    result = operand.copy()
    for index, candidates in Windows(sizes, *numbers).elements(
        updates.shape, starts, operand.shape
    ):
        for start, value, at in candidates:
            is_here = algebra.compare("eq", start, value)
            result[at] = algebra.add_where(result[at], is_here, updates[index])
    return [result]
