"""`jax.vmap` for tiny models on a CPU: the batch is the last axis, so SIMD lanes run along it.

Batched by `jax.vmap`, the innermost loops of the tutorial's model run over 2 or 4 features, and
vector units idle. Here sums of products and reductions over few numbers are written out term by
term, so that every loop runs along the batch. `jax.vmap` does the rest. The result is the same, up
to the order of additions. Custom derivatives are lost, so a relu at exactly 0 has the slope 1/2.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Jaxpr, JaxprEqn

from jax_revinc.compilation.jaxprs import bind, called_jaxpr, interpret

TERMS_AT_MOST = 32
"""Longer sums are left to `jax.vmap`: written out, they would take long to compile."""

ELEMENTWISE = frozenset(
    {
        *("add", "sub", "mul", "div", "max", "min", "pow", "select_n"),
        *("eq", "ne", "lt", "le", "gt", "ge", "and", "or"),
    }
)
"""Primitives that are applied directly, since `jax.vmap` would move the batch to the front."""

REDUCTIONS: dict[str, Callable[[Array, Array], Array]] = {
    "reduce_sum": jnp.add,
    "reduce_max": jnp.maximum,
}
"""Reductions that are written out, and the operation that combines two terms."""


class Value(NamedTuple):
    """An array in the evaluation of a jaxpr, with the batch as its last axis if `batched`."""

    array: Array
    batched: bool


def simd_vmap(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A fast ``jax.vmap(function, in_axes=(None, -1), out_axes=-1)`` for tiny models on a CPU.

    Args:
        function: a function of two pytrees: what the batch shares, with floats in it, and what each
            element of the batch has.
    """

    def batched(shared: Any, each: Any) -> Any:
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[:-1], x.dtype), each)
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(shared, one)
        inputs = [Value(x, False) for x in jax.tree.leaves(shared)]
        inputs += [Value(x, True) for x in jax.tree.leaves(each)]
        outputs = run(hidden_one(shared), closed.jaxpr, closed.consts, inputs)
        width = jax.tree.leaves(each)[0].shape[-1]
        arrays = [
            x.array if x.batched else jnp.broadcast_to(x.array[..., None], (*x.array.shape, width))
            for x in outputs
        ]
        return jax.tree.unflatten(jax.tree.structure(shapes), arrays)

    return batched


def hidden_one(shared: Any) -> Array:
    """The number 1, in a form that the compiler can't recognise."""
    floats = next(x for x in jax.tree.leaves(shared) if jnp.issubdtype(x.dtype, jnp.floating))
    return 1 + 0 * jax.lax.stop_gradient(floats.ravel()[0])


def run(one: Array, jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Value]) -> Sequence[Value]:
    """Evaluate a jaxpr on values of which some are batched; `one` is a 1 hidden from XLA."""

    def constant(array: Any) -> Value:
        return Value(jnp.asarray(array), False)

    return interpret(jaxpr, consts, args, constant, functools.partial(apply, one))


def apply(one: Array, equation: JaxprEqn, operands: Sequence[Value]) -> Sequence[Value]:
    """Evaluate one equation of a jaxpr on values, some batched; `one` is a 1 hidden from XLA."""
    if inner := called_jaxpr(equation):
        return run(one, *inner, operands)
    name, params = equation.primitive.name, equation.params
    arrays = [x.array for x in operands]
    if not any(x.batched for x in operands):
        return [Value(x, False) for x in bind(equation, *arrays)]
    if name == "dot_general" and n_terms(equation) <= TERMS_AT_MOST:
        left, right = (keep(one, x.array) if x.batched else x.array[..., None] for x in operands)
        product = written_out_dot(left, right, params["dimension_numbers"])
        return [Value(keep(one, product), True)]
    if name in REDUCTIONS and n_terms(equation) <= TERMS_AT_MOST:
        parts = terms(keep(one, arrays[0]), params["axes"])
        return [Value(keep(one, functools.reduce(REDUCTIONS[name], parts)), True)]
    if name == "broadcast_in_dim":
        return [Value(broadcast_in_dim(arrays[0], params), True)]
    if name in ELEMENTWISE:
        return [Value(x, True) for x in bind(equation, *same_shape(operands))]
    axes = [-1 if x.batched else None for x in operands]
    batched = jax.vmap(functools.partial(bind, equation), in_axes=axes, out_axes=-1)
    return [Value(x, True) for x in batched(*arrays)]


def keep(one: Array, array: Array) -> Array:
    """The array, divided by 1 so that XLA computes it only once, not again for every use.

    XLA copies cheap operations into all their users, and would compute a sum's operands anew for
    every term. It does not copy divisions, and a division by 1 changes nothing.
    """
    is_float = jnp.issubdtype(array.dtype, jnp.floating)
    return array / one.astype(array.dtype) if is_float else array


def n_terms(equation: JaxprEqn) -> int:
    """The number of terms of each sum or maximum that an equation of a jaxpr computes."""
    params, aval = equation.params, cast(Any, equation.invars[0].aval)
    axes = params["axes"] if "axes" in params else params["dimension_numbers"][0][0]
    return math.prod(aval.shape[axis] for axis in axes)


def terms(array: Array, axes: Sequence[int]) -> list[Array]:
    """The slices of an array at every index along `axes`, each without these axes."""
    starts, stops = [0] * array.ndim, list(array.shape)
    parts = []
    for index in itertools.product(*(range(array.shape[axis]) for axis in axes)):
        for axis, i in zip(axes, index, strict=True):
            starts[axis], stops[axis] = i, i + 1
        parts.append(jax.lax.squeeze(jax.lax.slice(array, starts, stops), axes))
    return parts


def written_out_dot(left: Array, right: Array, dimension_numbers: Any) -> Array:
    """``dot_general`` as a sum of products, on arrays with the batch as an additional last axis."""
    (summed_left, summed_right), (paired_left, paired_right) = dimension_numbers
    n_paired = len(paired_left)

    def parts(array: Array, summed: Sequence[int], paired: Sequence[int]) -> list[Array]:
        """One operand's slices along the summed axes, each of shape [*paired, *free, batch]."""
        free = [axis for axis in range(array.ndim - 1) if axis not in (*summed, *paired)]
        order = (*summed, *paired, *free, array.ndim - 1)
        where = [
            sum(other < axis for other in range(array.ndim) if other not in summed)
            for axis in order
        ]
        return [jnp.transpose(part, where[len(summed) :]) for part in terms(array, summed)]

    lefts = parts(left, summed_left, paired_left)
    rights = parts(right, summed_right, paired_right)
    n_left = lefts[0].ndim - 1 - n_paired
    n_right = rights[0].ndim - 1 - n_paired
    products = [
        jnp.expand_dims(a, range(n_paired + n_left, n_paired + n_left + n_right))
        * jnp.expand_dims(b, range(n_paired, n_paired + n_left))
        for a, b in zip(lefts, rights, strict=True)
    ]
    return functools.reduce(jnp.add, products)


def broadcast_in_dim(array: Array, params: dict[str, Any]) -> Array:
    """``broadcast_in_dim`` of an array with the batch as an additional last axis."""
    shape, axes = params["shape"], params["broadcast_dimensions"]
    return jax.lax.broadcast_in_dim(array, (*shape, array.shape[-1]), (*axes, len(shape)))


def same_shape(operands: Sequence[Value]) -> list[Array]:
    """The operands' arrays, broadcast to one shape with a batch axis; scalars stay scalars."""
    widened = [x.array if x.batched or x.array.ndim == 0 else x.array[..., None] for x in operands]
    shape = jnp.broadcast_shapes(*(x.shape for x in widened))
    return [x if x.ndim == 0 else jnp.broadcast_to(x, shape) for x in widened]
