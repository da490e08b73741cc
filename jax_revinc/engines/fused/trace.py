"""Trace a JAX function of one example into a graph of scalar operations."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jax_revinc.compilation import jaxprs
from jax_revinc.engines.fused.errors import NotFusible
from jax_revinc.engines.fused.graph import INT, PARAMETER, TOKEN, Program, Scalars
from jax_revinc.engines.fused.primitives import RULES, as_scalars
from jax_revinc.engines.fused.simplify import Algebra
from jax_revinc.engines.fused.spec import Spec


def trace(function: Callable[..., Any], spec: Spec) -> Program:
    """Trace a JAX function of one example into a computation graph of scalar operations. Its
    outputs are all elements of the function's results.

    Args:
        function: of the parameters' pytree and token ids of shape [1 seq], to a pytree of arrays.
        spec: the shapes of the parameters and of the example.

    Raises:
        NotFusible: if it uses a primitive that `primitives` does not list, or is too large.
    """
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), spec.params)
    jaxpr = jax.make_jaxpr(function)(params, jax.ShapeDtypeStruct((1, spec.length), np.int32))
    algebra = Algebra()
    arrays, count = [], 0
    for leaf in jax.tree.leaves(params):
        nodes = [algebra.make(PARAMETER, count + i) for i in range(leaf.size)]
        arrays.append(np.array(nodes, object).reshape(leaf.shape))
        count += leaf.size
    bounds = (0, spec.n_tokens - 1)
    ids = [algebra.make(TOKEN, i, kind=INT, bounds=bounds) for i in range(spec.length)]
    example = np.array(ids, object).reshape(1, spec.length)
    results = interpret(algebra, jaxpr.jaxpr, jaxpr.consts, [*arrays, example])
    outputs = tuple(scalar for array in results for scalar in array.flat)
    return Program(outputs, count, spec.length, jaxpr_text(jaxpr))


def jaxpr_text(jaxpr: core.ClosedJaxpr) -> str:
    """A jaxpr and its constants as text without memory addresses, for use as a cache key."""
    consts = " ".join(np.array2string(np.asarray(x), threshold=sys.maxsize) for x in jaxpr.consts)
    return re.sub(r" at 0x[0-9a-f]+", "", f"{jaxpr} {consts}")


def interpret(
    algebra: Algebra, jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Scalars]
) -> list[Scalars]:
    """Evaluate a jaxpr on arrays of symbolic scalars, which are graph nodes or constants."""
    rule = functools.partial(apply_equation, algebra)
    return jaxprs.interpret(jaxpr, consts, args, as_scalars, rule)


def apply_equation(
    algebra: Algebra, equation: core.JaxprEqn, operands: list[Scalars]
) -> Sequence[Scalars]:
    """Evaluate a jaxpr equation on arrays of symbolic scalars, which are graph nodes or constants.

    Raises:
        NotFusible: if `primitives` does not list its primitive.
    """
    if called := jaxprs.called_jaxpr(equation):
        return interpret(algebra, *called, operands)
    name = equation.primitive.name
    if name not in RULES:
        raise NotFusible(
            f"the fused engine does not support the JAX primitive {name}, which this computation "
            "uses"
        )
    shape = equation.outvars[0].aval.shape  # type: ignore[attr-defined]
    return RULES[name](algebra, equation.params, shape, operands)
