"""What JAX's primitives do to arrays of scalars.

The supported ones, by their names in a jaxpr:

| | |
|---|---|
| arithmetic | `add add_any sub mul div neg max min abs sign square integer_pow sqrt rsqrt exp log tanh logistic erfc` |
| truth | `lt le gt ge eq ne and or not is_finite select_n` |
| as it is | `copy stop_gradient convert_element_type` |
| shape | `reshape squeeze transpose broadcast_in_dim rev` |
| parts | `slice split concatenate pad stack unstack iota` |
| sums | `reduce_sum reduce_max reduce_min argmax dot_general` |
| indices | `gather scatter-add`, along one dimension, with integers whose bounds are known |
| calls | `jit pjit closed_call checkpoint remat2 custom_jvp_call custom_vjp_call`, which are inlined |
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jax_revinc.engines.fused.algebra import COMPARISONS, Algebra
from jax_revinc.engines.fused.dag import INT, MASK, Node, Scalar
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.indexing import Scalars, Windows, gather, scatter_add

Shape = tuple[int, ...]
Rule = Callable[[Algebra, dict[str, Any], Shape, list[Scalars]], Sequence[Scalars]]
"""From an equation's parameters, its first result's shape and its operands to its results."""

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
"""Primitives that call a jaxpr, and the parameter that holds it."""


def as_scalars(array: Any) -> Scalars:
    """A known array, as Python numbers."""
    known = np.asarray(array)
    number = {"b": bool, "i": int, "u": int}.get(known.dtype.kind, float)
    return each(number, known)


def each(operation: Callable[..., Scalar], *arrays: np.ndarray) -> Scalars:
    """An operation on scalars, applied element by element."""
    together = np.broadcast_arrays(*arrays)
    values = (operation(*scalars) for scalars in zip(*(a.flat for a in together), strict=True))
    return np.fromiter(values, object, together[0].size).reshape(together[0].shape)


def elementwise(operation: Callable[..., Scalar]) -> Rule:
    return lambda algebra, _, __, x: [each(lambda *xs: operation(algebra, *xs), *x)]


def rearranged(arrange: Callable[[dict[str, Any], Shape, Scalars], Scalars]) -> Rule:
    """A rule that only moves the elements of its one operand."""
    return lambda _, params, shape, x: [arrange(params, shape, x[0])]


def reduction(combine: Callable[[Algebra, Scalar, Scalar], Scalar], start: Scalar) -> Rule:
    def rule(
        algebra: Algebra, params: dict[str, Any], shape: Shape, x: list[Scalars]
    ) -> list[Scalars]:
        axes = params["axes"]
        first = np.moveaxis(x[0], axes, range(len(axes)))
        rows = first.reshape(-1, *shape)
        total = np.full(shape, start, object)
        return [
            functools.reduce(
                lambda a, b: each(lambda *xs: combine(algebra, *xs), a, b), rows, total
            )
        ]

    return rule


def convert(algebra: Algebra, params: dict[str, Any], _: Shape, x: list[Scalars]) -> list[Scalars]:
    kind = np.dtype(params["new_dtype"]).kind

    def to_kind(a: Scalar) -> Scalar:
        if not isinstance(a, Node):
            return {"b": bool, "i": int, "u": int}.get(kind, float)(a)
        if a.kind == MASK and kind != "b":
            return algebra.select(a, 0, 1) if kind in "iu" else algebra.select(a, 0.0, 1.0)
        if a.kind == INT and kind == "f":
            return algebra.make("to_float", a)
        if kind != {INT: "i", MASK: "b"}.get(a.kind, "f"):
            raise NotFusible(f"it converts numbers to {params['new_dtype']}")
        return a

    return [each(to_kind, x[0])]


def select_n(algebra: Algebra, _: dict[str, Any], __: Shape, x: list[Scalars]) -> list[Scalars]:
    if len(x) != 3:
        raise NotFusible(f"it selects from {len(x) - 1} arrays")
    return [each(algebra.select, *x)]


def broadcast_in_dim(params: dict[str, Any], shape: Shape, x: Scalars) -> Scalars:
    wide = [1] * len(shape)
    for size, dim in zip(x.shape, params["broadcast_dimensions"], strict=True):
        wide[dim] = size
    return np.broadcast_to(x.reshape(wide), shape)


def slice_(params: dict[str, Any], _: Shape, x: Scalars) -> Scalars:
    strides = params["strides"] or [1] * x.ndim
    ends = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return x[tuple(slice(*each_dim) for each_dim in ends)]


def split(_: Algebra, params: dict[str, Any], __: Shape, x: list[Scalars]) -> list[Scalars]:
    return np.split(x[0], np.cumsum(params["sizes"])[:-1], params["axis"])


def unstack(_: Algebra, params: dict[str, Any], __: Shape, x: list[Scalars]) -> list[Scalars]:
    return list(np.moveaxis(x[0], params["axis"], 0))


def pad(_: Algebra, params: dict[str, Any], shape: Shape, x: list[Scalars]) -> list[Scalars]:
    if any(low < 0 or high < 0 for low, high, _ in params["padding_config"]):
        raise NotFusible("it pads by less than nothing")
    padded = np.full(shape, x[1].item(), object)
    config = zip(params["padding_config"], x[0].shape, strict=True)
    inside = [
        slice(low, low + (n - 1) * (gap + 1) + 1, gap + 1) if n else slice(0)
        for (low, _, gap), n in config
    ]
    padded[tuple(inside)] = x[0]
    return [padded]


def iota(_: Algebra, params: dict[str, Any], shape: Shape, __: list[Scalars]) -> list[Scalars]:
    count = np.arange(shape[params["dimension"]], dtype=params["dtype"])
    at = [-1 if dim == params["dimension"] else 1 for dim in range(len(shape))]
    return [as_scalars(np.broadcast_to(count.reshape(at), shape))]


def dot_general(
    algebra: Algebra, params: dict[str, Any], shape: Shape, x: list[Scalars]
) -> list[Scalars]:
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


def gather_(
    algebra: Algebra, params: dict[str, Any], shape: Shape, x: list[Scalars]
) -> list[Scalars]:
    operand, starts = x
    windows = Windows(params["slice_sizes"], *params["dimension_numbers"])
    return [gather(algebra, operand, starts, windows, shape)]


def scatter_add_(
    algebra: Algebra, params: dict[str, Any], _: Shape, x: list[Scalars]
) -> list[Scalars]:
    operand, starts, updates = x
    numbers = params["dimension_numbers"]
    dropped = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    kept = iter(numbers.update_window_dims)
    sizes = tuple(1 if d in dropped else updates.shape[next(kept)] for d in range(operand.ndim))
    return [scatter_add(algebra, operand, starts, updates, Windows(sizes, *numbers))]


def argmax(
    algebra: Algebra, params: dict[str, Any], shape: Shape, x: list[Scalars]
) -> list[Scalars]:
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


RULES: dict[str, Rule] = {
    **{op: comparison(op) for op in COMPARISONS},
    "add": elementwise(Algebra.add),
    "add_any": elementwise(Algebra.add),
    "sub": elementwise(Algebra.sub),
    "mul": elementwise(Algebra.mul),
    "div": elementwise(Algebra.div),
    "neg": elementwise(Algebra.neg),
    "max": elementwise(Algebra.max),
    "min": elementwise(Algebra.min),
    "abs": elementwise(lambda algebra, a: algebra.max(a, algebra.neg(a))),
    "sign": elementwise(Algebra.sign),
    "square": elementwise(Algebra.square),
    "integer_pow": lambda algebra, params, _, x: [
        each(lambda a: algebra.integer_pow(a, params["y"]), x[0])
    ],
    "sqrt": elementwise(Algebra.sqrt),
    "rsqrt": elementwise(Algebra.rsqrt),
    "exp": elementwise(Algebra.exp),
    "log": elementwise(Algebra.log),
    "tanh": elementwise(Algebra.tanh),
    "logistic": elementwise(Algebra.logistic),
    "erfc": elementwise(Algebra.erfc),
    "and": elementwise(Algebra.logical_and),
    "or": elementwise(Algebra.logical_or),
    "not": elementwise(Algebra.logical_not),
    "is_finite": elementwise(lambda algebra, a: algebra.compare("eq", algebra.sub(a, a), 0.0)),
    "select_n": select_n,
    "copy": rearranged(lambda _, __, x: x),
    "stop_gradient": rearranged(lambda _, __, x: x),
    "convert_element_type": convert,
    "reshape": rearranged(lambda _, shape, x: x.reshape(shape)),
    "squeeze": rearranged(lambda _, shape, x: x.reshape(shape)),
    "transpose": rearranged(lambda params, _, x: x.transpose(params["permutation"])),
    "broadcast_in_dim": rearranged(broadcast_in_dim),
    "rev": rearranged(lambda params, _, x: np.flip(x, params["dimensions"])),
    "slice": rearranged(slice_),
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
    "gather": gather_,
    "scatter-add": scatter_add_,
}
"""What is done for every supported primitive that is no call."""
