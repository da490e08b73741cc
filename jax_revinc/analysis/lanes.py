"""`jax.vmap` for tiny models on a CPU: the batch is the last axis, so that a vector register holds many sequences.

Batched by `jax.vmap`, the innermost loops of the tutorial's model run over 2 or 4 features, and vector units
idle. Here sums of products and reductions over few numbers are written out term by term, so that every loop
runs along the batch. All else is left to `jax.vmap`: the result is the same, up to the order of additions. Custom
derivatives are not kept, so a relu at exactly 0 has the slope 1/2.
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
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

TERMS_AT_MOST = 32
"""A sum of more terms than this is left to `jax.vmap`: written out it would take long to compile."""

ELEMENTWISE = frozenset(
    {
        *("add", "sub", "mul", "div", "max", "min", "pow", "select_n"),
        *("eq", "ne", "lt", "le", "gt", "ge", "and", "or"),
    }
)
"""Primitives of several operands. (`jax.vmap` would move the batch to the front.)"""

REDUCTIONS: dict[str, Callable[[Array, Array], Array]] = {
    "reduce_sum": jnp.add,
    "reduce_max": jnp.maximum,
}
"""Reductions that are written out, and how two terms combine."""

CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr"}
"""Primitives that hold another program, and their parameter that is it. A custom derivative is lost."""


class Value(NamedTuple):
    """An array of the program, with the batch as an additional last axis if `batched`."""

    array: Array
    batched: bool


def lanes(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``jax.vmap(function, in_axes=(None, -1), out_axes=-1)``, computed as this module says.

    Args:
        function: of two pytrees, what is shared by the batch (with floats in it) and what is not.
    """

    def batched(shared: Any, each: Any) -> Any:
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[:-1], x.dtype), each)
        program, shapes = jax.make_jaxpr(function, return_shape=True)(shared, one)
        inputs = [Value(x, False) for x in jax.tree.leaves(shared)]
        inputs += [Value(x, True) for x in jax.tree.leaves(each)]
        outputs = Interpreter(hidden_one(shared)).run(program.jaxpr, program.consts, inputs)
        width = jax.tree.leaves(each)[0].shape[-1]
        arrays = [
            x.array if x.batched else jnp.broadcast_to(x.array[..., None], (*x.array.shape, width))
            for x in outputs
        ]
        return jax.tree.unflatten(jax.tree.structure(shapes), arrays)

    return batched


def hidden_one(shared: Any) -> Array:
    """The number 1, in a way that the compiler can't see."""
    floats = next(x for x in jax.tree.leaves(shared) if jnp.issubdtype(x.dtype, jnp.floating))
    return 1 + 0 * jax.lax.stop_gradient(floats.ravel()[0])


class Interpreter:
    """Runs a program operation by operation, choosing how each is batched."""

    def __init__(self, one: Array) -> None:
        self.one = one

    def run(
        self, program: Jaxpr, constants: Sequence[Array], inputs: Sequence[Value]
    ) -> list[Value]:
        """What the program returns."""
        known: dict[Var, Value] = {}

        def value_of(variable: Var | Literal) -> Value:
            if isinstance(variable, Literal):
                aval: Any = variable.aval
                return Value(jnp.asarray(variable.val, aval.dtype), False)
            return known[variable]

        known.update(zip(program.constvars, (Value(x, False) for x in constants), strict=True))
        known.update(zip(program.invars, inputs, strict=True))
        for operation in program.eqns:
            operands = [value_of(variable) for variable in operation.invars]
            known.update(zip(operation.outvars, self.apply(operation, operands), strict=True))
        return [value_of(variable) for variable in program.outvars]

    def apply(self, operation: JaxprEqn, operands: list[Value]) -> list[Value]:
        """What one operation returns."""
        name, params = operation.primitive.name, operation.params
        if name in CALLS:
            inner = params[CALLS[name]]
            return self.run(inner.jaxpr, inner.consts, operands)
        if not any(operand.batched for operand in operands):
            return [Value(x, False) for x in bind(operation, *(x.array for x in operands))]
        if name == "dot_general" and n_terms(operation) <= TERMS_AT_MOST:
            left, right = (
                self.kept(x.array) if x.batched else x.array[..., None] for x in operands
            )
            product = written_out_dot(left, right, params["dimension_numbers"])
            return [Value(self.kept(product), True)]
        if name in REDUCTIONS and n_terms(operation) <= TERMS_AT_MOST:
            parts = terms(self.kept(operands[0].array), params["axes"])
            return [Value(self.kept(functools.reduce(REDUCTIONS[name], parts)), True)]
        if name == "broadcast_in_dim":
            return [Value(broadcast_in_dim(operands[0].array, params), True)]
        if name in ELEMENTWISE:
            return [Value(x, True) for x in bind(operation, *same_shape(operands))]
        axes = [-1 if operand.batched else None for operand in operands]
        outputs = jax.vmap(functools.partial(bind, operation), in_axes=axes, out_axes=-1)(
            *(operand.array for operand in operands)
        )
        return [Value(x, True) for x in outputs]

    def kept(self, array: Array) -> Array:
        """The array, which XLA will compute once and keep.

        It copies cheap operations into all that use them, and would compute a sum's operands anew for every
        term. A division it finds too dear to copy; a division by one changes nothing.
        """
        if not jnp.issubdtype(array.dtype, jnp.floating):
            return array
        return array / self.one.astype(array.dtype)


def bind(operation: JaxprEqn, *arrays: Array) -> list[Array]:
    """The operation, as it is."""
    outputs = operation.primitive.bind(*arrays, **operation.params)
    return outputs if operation.primitive.multiple_results else [outputs]


def n_terms(operation: JaxprEqn) -> int:
    """How many numbers are added up (or compared) for each result."""
    params, aval = operation.params, cast(Any, operation.invars[0].aval)
    axes = params["axes"] if "axes" in params else params["dimension_numbers"][0][0]
    return math.prod(aval.shape[axis] for axis in axes)


def terms(array: Array, axes: Sequence[int]) -> list[Array]:
    """The parts of an array at every index along `axes`, which they lose."""
    starts, stops = [0] * array.ndim, list(array.shape)
    parts = []
    for index in itertools.product(*(range(array.shape[axis]) for axis in axes)):
        for axis, i in zip(axes, index, strict=True):
            starts[axis], stops[axis] = i, i + 1
        parts.append(jax.lax.squeeze(jax.lax.slice(array, starts, stops), axes))
    return parts


def written_out_dot(left: Array, right: Array, dimension_numbers: Any) -> Array:
    """``dot_general`` of arrays that have the batch as an additional last axis, as a sum of products."""
    (summed_left, summed_right), (paired_left, paired_right) = dimension_numbers
    n_paired = len(paired_left)

    def parts(array: Array, summed: Sequence[int], paired: Sequence[int]) -> list[Array]:
        """Terms of shape [*paired, *free, batch]."""
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
    """``broadcast_in_dim`` of an array that has the batch as an additional last axis."""
    shape, axes = params["shape"], params["broadcast_dimensions"]
    return jax.lax.broadcast_in_dim(array, (*shape, array.shape[-1]), (*axes, len(shape)))


def same_shape(operands: list[Value]) -> list[Array]:
    """All of one shape, with the batch axis; but plain numbers stay."""
    widened = [x.array if x.batched or x.array.ndim == 0 else x.array[..., None] for x in operands]
    shape = jnp.broadcast_shapes(*(x.shape for x in widened))
    return [x if x.ndim == 0 else jnp.broadcast_to(x, shape) for x in widened]
