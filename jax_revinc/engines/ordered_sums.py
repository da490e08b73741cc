"""Functions without scatters, which on a GPU add in an order that is left to chance.

The derivative of an array that is indexed, such as an embedding, is a scatter: rows are added at
places that are known only at run time. On a GPU many threads add at once. Where two rows have one
place their order may differ from run to run, and so may the bits. A product with a one-hot matrix
is the same sum, in an order that is compiled in.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import JaxprEqn
from jax.lax import GatherScatterMode, ScatterDimensionNumbers

from jax_revinc.compilation import jaxprs

P = ParamSpec("P")
R = TypeVar("R")


def with_ordered_sums(function: Callable[P, R]) -> Callable[P, R]:
    """Make the function that computes the same without scatters, for the same arguments.

    A scatter that adds becomes a product with a one-hot matrix. This matrix has a column for each
    place: that of an embedding is as large as the logits of all positions. If an added number is
    infinite or NaN, the sums at all places to which it might have been added are NaN. A scatter along
    several dimensions at once stays as it is; no model of the family has one.

    Args:
        function: a function of pytrees of arrays that can be traced, such as a gradient. Custom
            derivatives within it are lost.
    """

    def with_products(*args: P.args, **kwargs: P.kwargs) -> R:
        leaves, structure = jax.tree.flatten((args, kwargs))

        def of_leaves(*leaves: Array) -> R:
            args, kwargs = jax.tree.unflatten(structure, leaves)
            return function(*args, **kwargs)

        traced, shape = jax.make_jaxpr(of_leaves, return_shape=True)(*leaves)
        results = interpret(traced.jaxpr, traced.consts, leaves)
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return with_products


def interpret(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Evaluate a jaxpr on arrays, with products in place of scatters."""
    return jaxprs.interpret(jaxpr, consts, args, lambda constant: constant, apply)


def apply(equation: JaxprEqn, operands: list[Any]) -> Sequence[Any]:
    """Evaluate an equation on arrays, with products in place of scatters."""
    if called := jaxprs.called_jaxpr(equation):
        return interpret(*called, operands)
    if equation.primitive.name == "scatter-add":
        numbers, mode = equation.params["dimension_numbers"], equation.params["mode"]
        if is_along_one_dimension(numbers):
            return [add_by_product(*operands, numbers=numbers, mode=mode)]
    return jaxprs.bind(equation, *operands)


def is_along_one_dimension(numbers: ScatterDimensionNumbers) -> bool:
    """Whether each index of a scatter is a place in the same one dimension."""
    along = numbers.scatter_dims_to_operand_dims
    return len(along) == 1 and numbers.inserted_window_dims == along


def add_by_product(
    operand: Array,
    indices: Array,
    updates: Array,
    *,
    numbers: ScatterDimensionNumbers,
    mode: GatherScatterMode,
) -> Array:
    """Add updates to an array as `jax.lax.scatter_add` does, by a product with a one-hot matrix.

    Args:
        operand: the array that is added to.
        indices: the place of each update along one dimension of it [..., 1].
        updates: what is added there.
        numbers: which dimension is which, as for `jax.lax.scatter_add`.
        mode: what happens to a place out of bounds, as for `jax.lax.scatter_add`.
    """
    (along,) = numbers.scatter_dims_to_operand_dims
    letters = iter(string.ascii_letters)
    of_operand = list(itertools.islice(letters, operand.ndim))
    of_indices = list(itertools.islice(letters, indices.ndim - 1))
    batching = zip(
        numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True
    )
    for operand_dim, indices_dim in batching:
        of_indices[indices_dim] = of_operand[operand_dim]
    not_in_windows = {along, *numbers.operand_batching_dims}
    of_windows = (x for dim, x in enumerate(of_operand) if dim not in not_in_windows)
    of_each = iter(of_indices)
    of_updates = [
        next(of_windows if dim in numbers.update_window_dims else of_each)
        for dim in range(updates.ndim)
    ]
    places = indices[..., 0]
    if mode == GatherScatterMode.CLIP:
        places = jnp.clip(places, 0, operand.shape[along] - 1)
    one_hot = jax.nn.one_hot(places, operand.shape[along], dtype=updates.dtype)
    subscripts = f"{''.join(of_indices)}{of_operand[along]},{''.join(of_updates)}"
    return operand + jnp.einsum(f"{subscripts}->{''.join(of_operand)}", one_hot, updates)
