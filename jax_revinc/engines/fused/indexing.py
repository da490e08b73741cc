"""Indices that are not known: an element is selected from all that it may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jax_revinc.engines.fused.algebra import Algebra, bounds
from jax_revinc.engines.fused.dag import Node, Scalar
from jax_revinc.engines.fused.errors import NotFusible

Scalars = np.ndarray  # of Scalar


Index = tuple[int, ...]


class Place(NamedTuple):
    """An index of the operand, which is meant where `start` is `value`."""

    start: Scalar
    value: int
    at: Index


class Windows(NamedTuple):
    """Which element of an operand every element of a gather's result is; a scatter's updates go back there.

    The fields are the windows' sizes in every dimension, and those of `jax.lax.GatherDimensionNumbers`.
    """

    sizes: tuple[int, ...]
    offset_dims: tuple[int, ...]
    collapsed_slice_dims: tuple[int, ...]
    start_index_map: tuple[int, ...]
    operand_batching_dims: tuple[int, ...]
    start_indices_batching_dims: tuple[int, ...]

    def elements(
        self, shape: Index, starts: Scalars, operand_shape: Index
    ) -> Iterator[tuple[Index, list[Place]]]:
        """Every index of the windows, which are of `shape` together, and the places that it may mean."""
        batch_dims = [dim for dim in range(len(shape)) if dim not in self.offset_dims]
        dropped = {*self.collapsed_slice_dims, *self.operand_batching_dims}
        window_dims = [dim for dim in range(len(operand_shape)) if dim not in dropped]
        for index in np.ndindex(*shape):
            batch = [index[dim] for dim in batch_dims]
            place = [0] * len(operand_shape)
            for dim, offset_dim in zip(window_dims, self.offset_dims, strict=True):
                place[dim] = index[offset_dim]
            batching = zip(
                self.operand_batching_dims, self.start_indices_batching_dims, strict=True
            )
            for dim, of_starts in batching:
                place[dim] = batch[of_starts]
            yield index, self._places(place, starts[tuple(batch)], operand_shape)

    def _places(self, place: list[int], starts: Scalars, operand_shape: Index) -> list[Place]:
        unknown: Scalar = 0
        at = None
        for dim, start in zip(self.start_index_map, starts, strict=True):
            least, most = bounds(start)
            if least < 0 or most > operand_shape[dim] - self.sizes[dim]:
                raise NotFusible("it may index an array out of its bounds")
            if not isinstance(start, Node):
                place[dim] += start
            elif at is None:
                unknown, at = start, dim
            else:
                raise NotFusible("it indexes an array in two dimensions at once")
        if at is None:
            return [Place(0, 0, tuple(place))]
        least, most = bounds(unknown)
        return [
            Place(unknown, value, (*place[:at], place[at] + value, *place[at + 1 :]))
            for value in range(least, most + 1)
        ]


def gather(
    algebra: Algebra, operand: Scalars, starts: Scalars, windows: Windows, shape: Index
) -> Scalars:
    """See `jax.lax.gather`. Indices are within bounds, whatever the mode says would happen else."""
    result = np.empty(shape, object)
    for index, places in windows.elements(shape, starts, operand.shape):
        chosen = operand[places[0].at]
        for start, value, place in places[1:]:
            chosen = algebra.select(algebra.compare("eq", start, value), chosen, operand[place])
        result[index] = chosen
    return result


def scatter_add(
    algebra: Algebra, operand: Scalars, starts: Scalars, updates: Scalars, windows: Windows
) -> Scalars:
    """See `jax.lax.scatter_add`: the transpose of a gather."""
    result = operand.copy()
    for index, places in windows.elements(updates.shape, starts, operand.shape):
        for start, value, place in places:
            here = algebra.compare("eq", start, value)
            result[place] = algebra.add_where(result[place], here, updates[index])
    return result
