"""The JAX primitives that the fused engine supports, as operations on arrays of scalars.

The supported primitives, by their names in a jaxpr:

| | |
|---|---|
| arithmetic | `add add_any sub mul div neg max min abs sign square integer_pow one_minus_square` |
| functions | `sqrt rsqrt exp log tanh logistic erfc` |
| truth | `lt le gt ge eq ne and or not is_finite select_n` |
| no change of value | `copy stop_gradient convert_element_type` |
| shape | `reshape squeeze transpose broadcast_in_dim rev` |
| parts | `slice split concatenate pad stack unstack iota` |
| sums | `reduce_sum reduce_max reduce_min argmax dot_general` |
| indices | `gather scatter-add`, along one dimension, with integers whose bounds are known |
| calls, inlined | `jit pjit closed_call checkpoint remat2 custom_jvp_call custom_vjp_call` |
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.graph import INT, MASK, Node, Scalar, Scalars
from jax_revinc.engines.fused.indexing import Arrays, EqnParams, Shape, gather, scatter_add
from jax_revinc.engines.fused.simplify import COMPARISONS, Algebra

Rule = Callable[[Algebra, EqnParams, Shape, Arrays], Arrays]
"""From an equation's parameters, its first result's shape and its operands to its results."""


def as_scalars(array: Any) -> Scalars:
    """Convert an array of constants to an object array of Python numbers."""
    constants = np.asarray(array)
    number = {"b": bool, "i": int, "u": int}.get(constants.dtype.kind, float)
    return each(number, constants)


def each(operation: Callable[..., Scalar], *arrays: np.ndarray) -> Scalars:
    """Apply an operation on scalars to arrays of scalars element by element, with broadcasting."""
    same_shape = np.broadcast_arrays(*arrays)
    values = (operation(*scalars) for scalars in zip(*(a.flat for a in same_shape), strict=True))
    return np.fromiter(values, object, same_shape[0].size).reshape(same_shape[0].shape)


def elementwise(operation: Callable[..., Scalar]) -> Rule:
    return lambda algebra, _, __, x: [each(lambda *xs: operation(algebra, *xs), *x)]


def rearrangement(arrange: Callable[[EqnParams, Shape, Scalars], Scalars]) -> Rule:
    """The rule of a primitive that only moves elements of its operand, such as a transpose."""
    return lambda _, params, shape, x: [arrange(params, shape, x[0])]


def reduction(combine: Callable[[Algebra, Scalar, Scalar], Scalar], start: Scalar) -> Rule:
    def rule(algebra: Algebra, params: EqnParams, shape: Shape, x: Arrays) -> Arrays:
        axes = params["axes"]
        total = np.full(shape, start, object)
        for row in np.moveaxis(x[0], axes, range(len(axes))).reshape(-1, *shape):
            total = each(functools.partial(combine, algebra), total, row)
        return [total]

    return rule


def convert(algebra: Algebra, params: EqnParams, _: Shape, x: Arrays) -> Arrays:
    kind = np.dtype(params["new_dtype"]).kind

    def to_kind(a: Scalar) -> Scalar:
        if not isinstance(a, Node):
            return {"b": bool, "i": int, "u": int}.get(kind, float)(a)
        if a.kind == MASK and kind != "b":
            return algebra.select(a, 0, 1) if kind in "iu" else algebra.select(a, 0.0, 1.0)
        if a.kind == INT and kind == "f":
            return algebra.make("to_float", a)
        if kind != {INT: "i", MASK: "b"}.get(a.kind, "f"):
            raise NotFusible(
                f"the fused engine can't convert numbers to {params['new_dtype']}, as this "
                "computation does"
            )
        return a

    return [each(to_kind, x[0])]


def select_n(algebra: Algebra, _: EqnParams, __: Shape, x: Arrays) -> Arrays:
    if len(x) != 3:
        raise NotFusible(
            "the fused engine selects between two arrays only (jax.lax.select_n); this "
            f"computation selects between {len(x) - 1}"
        )
    return [each(algebra.select, *x)]


def broadcast_in_dim(params: EqnParams, shape: Shape, x: Scalars) -> Scalars:
    wide = [1] * len(shape)
    for size, dim in zip(x.shape, params["broadcast_dimensions"], strict=True):
        wide[dim] = size
    return np.broadcast_to(x.reshape(wide), shape)


def slice_(params: EqnParams, _: Shape, x: Scalars) -> Scalars:
    strides = params["strides"] or [1] * x.ndim
    ends = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return x[tuple(slice(*each_dim) for each_dim in ends)]


def split(_: Algebra, params: EqnParams, __: Shape, x: Arrays) -> Arrays:
    return np.split(x[0], np.cumsum(params["sizes"])[:-1], params["axis"])


def unstack(_: Algebra, params: EqnParams, __: Shape, x: Arrays) -> Arrays:
    return list(np.moveaxis(x[0], params["axis"], 0))


def pad(_: Algebra, params: EqnParams, shape: Shape, x: Arrays) -> Arrays:
    if any(low < 0 or high < 0 for low, high, _ in params["padding_config"]):
        raise NotFusible(
            "the fused engine can't pad an array by a negative number of elements, as this "
            "computation does"
        )
    padded = np.full(shape, x[1].item(), object)
    config = zip(params["padding_config"], x[0].shape, strict=True)
    inside = [
        slice(low, low + (n - 1) * (gap + 1) + 1, gap + 1) if n else slice(0)
        for (low, _, gap), n in config
    ]
    padded[tuple(inside)] = x[0]
    return [padded]


def iota(_: Algebra, params: EqnParams, shape: Shape, __: Arrays) -> Arrays:
    count = np.arange(shape[params["dimension"]], dtype=params["dtype"])
    at = [-1 if dim == params["dimension"] else 1 for dim in range(len(shape))]
    return [as_scalars(np.broadcast_to(count.reshape(at), shape))]


def dot_general(algebra: Algebra, params: EqnParams, shape: Shape, x: Arrays) -> Arrays:
    contracting, batch = params["dimension_numbers"]
    rows = []
    for array, summed, shared in zip(x, contracting, batch, strict=True):
        free = [dim for dim in range(array.ndim) if dim not in (*summed, *shared)]
        n_batch, n_free, n_summed = (
            math.prod(array.shape[d] for d in dims) for dims in (shared, free, summed)
        )
        rows.append(array.transpose(*shared, *free, *summed).reshape(n_batch, n_free, n_summed))
    left, right = rows
    zero: Scalar = 0.0

    def dot(a: Scalars, b: Scalars) -> Scalar:
        products = (algebra.mul(p, q) for p, q in zip(a, b, strict=True))
        return functools.reduce(algebra.add, products, zero)

    values = [
        dot(a, b)
        for a_rows, b_rows in zip(left, right, strict=True)
        for a in a_rows
        for b in b_rows
    ]
    return [np.fromiter(values, object, len(values)).reshape(shape)]


def argmax(algebra: Algebra, params: EqnParams, shape: Shape, x: Arrays) -> Arrays:
    (axis,) = params["axes"]

    def first_largest(numbers: Scalars) -> Scalar:
        most: Scalar = numbers[0]
        where: Scalar = 0
        for i, number in enumerate(numbers[1:], start=1):
            is_more = algebra.compare("gt", number, most)
            most, where = algebra.max(most, number), algebra.select(is_more, where, i)
        return where

    rows = np.moveaxis(x[0], axis, -1).reshape(-1, x[0].shape[axis])
    return [np.fromiter(map(first_largest, rows), object, len(rows)).reshape(shape)]


def comparison(op: str) -> Rule:
    return elementwise(lambda algebra, a, b: algebra.compare(op, a, b))


OPERATIONS = (
    *("add", "sub", "mul", "div", "neg", "max", "min", "sign", "square"),
    *("sqrt", "rsqrt", "exp", "log", "tanh", "logistic", "erfc"),
)
"""Primitives that are methods of `Algebra`, by the same name."""

RULES: dict[str, Rule] = {
    **{op: comparison(op) for op in COMPARISONS},
    **{op: elementwise(getattr(Algebra, op)) for op in OPERATIONS},
    "add_any": elementwise(Algebra.add),
    "abs": elementwise(lambda algebra, a: algebra.max(a, algebra.neg(a))),
    "integer_pow": lambda algebra, params, _, x: [
        each(lambda a: algebra.integer_pow(a, params["y"]), x[0])
    ],
    "one_minus_square": elementwise(lambda algebra, a: algebra.sub(1.0, algebra.square(a))),
    "and": elementwise(Algebra.logical_and),
    "or": elementwise(Algebra.logical_or),
    "not": elementwise(Algebra.logical_not),
    "is_finite": elementwise(lambda algebra, a: algebra.compare("eq", algebra.sub(a, a), 0.0)),
    "select_n": select_n,
    "copy": rearrangement(lambda _, __, x: x),
    "stop_gradient": rearrangement(lambda _, __, x: x),
    "convert_element_type": convert,
    "reshape": rearrangement(lambda _, shape, x: x.reshape(shape)),
    "squeeze": rearrangement(lambda _, shape, x: x.reshape(shape)),
    "transpose": rearrangement(lambda params, _, x: x.transpose(params["permutation"])),
    "broadcast_in_dim": rearrangement(broadcast_in_dim),
    "rev": rearrangement(lambda params, _, x: np.flip(x, params["dimensions"])),
    "slice": rearrangement(slice_),
    "split": split,
    "concatenate": lambda _, params, __, x: [np.concatenate(x, params["dimension"])],
    "pad": pad,
    "stack": lambda _, params, __, x: [np.stack(x, params["axis"])],
    "unstack": unstack,
    "iota": iota,
    "reduce_sum": reduction(Algebra.add, 0.0),
    "reduce_max": reduction(Algebra.max, -math.inf),
    "reduce_min": reduction(Algebra.min, math.inf),
    "argmax": argmax,
    "dot_general": dot_general,
    "gather": gather,
    "scatter-add": scatter_add,
}
"""The rule of every supported primitive that is not a call."""
