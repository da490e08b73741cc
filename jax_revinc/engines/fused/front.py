"""From a function of one example in JAX to a program of scalars that computes it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jax_revinc.engines.fused.algebra import Algebra
from jax_revinc.engines.fused.dag import INT, PARAMETER, TOKEN, Program
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.indexing import Scalars
from jax_revinc.engines.fused.primitives import CALLS, RULES, as_scalars


def trace(function: Callable[..., Any], params: Any, length: int, n_tokens: int) -> Program:
    """The program of one example: all numbers that `function` returns for it, in order.

    Args:
        function: of parameters (any pytree) and token ids of shape [1 seq].
        params: arrays, or their shapes and types.
        length: tokens of an example.
        n_tokens: token ids are below it.

    Raises:
        NotFusible: for a primitive that `primitives` does not list, or too large a program.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), params)
    tokens = jax.ShapeDtypeStruct((1, length), np.int32)
    jaxpr = jax.make_jaxpr(function)(shapes, tokens)
    algebra = Algebra()
    leaves, count = [], 0
    for leaf in jax.tree.leaves(shapes):
        numbers = [algebra.make(PARAMETER, count + i) for i in range(leaf.size)]
        leaves.append(np.array(numbers, object).reshape(leaf.shape))
        count += leaf.size
    ids = [algebra.make(TOKEN, i, kind=INT, bounds=(0, n_tokens - 1)) for i in range(length)]
    example = np.array(ids, object).reshape(1, length)
    results = run(algebra, jaxpr.jaxpr, jaxpr.consts, [*leaves, example])
    outputs = tuple(scalar for array in results for scalar in array.flat)
    return Program(outputs, count, length, text_of(jaxpr))


def text_of(jaxpr: core.ClosedJaxpr) -> str:
    """All that a jaxpr says, but for where in memory its functions are."""
    consts = " ".join(np.array2string(np.asarray(x), threshold=sys.maxsize) for x in jaxpr.consts)
    return re.sub(r" at 0x[0-9a-f]+", "", f"{jaxpr} {consts}")


def run(
    algebra: Algebra, jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Scalars]
) -> list[Scalars]:
    """What a jaxpr returns, on arrays of scalars."""
    values: dict[core.Var, Scalars] = {}

    def read(atom: Any) -> Scalars:
        return as_scalars(atom.val) if isinstance(atom, core.Literal) else values[atom]

    values.update(zip(jaxpr.constvars, map(as_scalars, consts), strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    for equation in jaxpr.eqns:
        results = results_of(algebra, equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def results_of(
    algebra: Algebra, equation: core.JaxprEqn, operands: list[Scalars]
) -> Sequence[Scalars]:
    """What one equation computes from arrays of scalars.

    Raises:
        NotFusible: for a primitive that `primitives` does not list.
    """
    name = equation.primitive.name
    if name in CALLS:
        called = equation.params[CALLS[name]]
        open_jaxpr = getattr(called, "jaxpr", called)
        return run(algebra, open_jaxpr, getattr(called, "consts", ()), operands)
    if name not in RULES:
        raise NotFusible(f"it uses JAX's {name}, which the fused engine does not know")
    shape = equation.outvars[0].aval.shape  # type: ignore[attr-defined]
    return RULES[name](algebra, equation.params, shape, operands)
