"""An interpreter of jaxprs that evaluates them on values of any kind, such as batched arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

Value = TypeVar("Value")

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
"""Primitives that call a jaxpr, and the parameter that holds it. Custom derivatives are lost."""


def called_jaxpr(equation: JaxprEqn) -> tuple[Jaxpr, Sequence[Any]] | None:
    """The jaxpr that an equation such as ``jit`` calls, with its constants; None for others."""
    if equation.primitive.name not in CALLS:
        return None
    inner = equation.params[CALLS[equation.primitive.name]]
    return getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())


def bind(equation: JaxprEqn, *arrays: Array) -> list[Array]:
    """Apply the primitive of a jaxpr's equation to arrays, and return its results as a list."""
    outputs = equation.primitive.bind(*arrays, **equation.params)
    return outputs if equation.primitive.multiple_results else [outputs]


def inline_calls(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The same computation with the equations of every called jaxpr in place of its call."""

    def apply(equation: JaxprEqn, arrays: list[Array]) -> Sequence[Array]:
        if called := called_jaxpr(equation):
            return interpret(*called, arrays, jnp.asarray, apply)
        return bind(equation, *arrays)

    def flat(*arrays: Array) -> list[Array]:
        return interpret(closed.jaxpr, closed.consts, arrays, jnp.asarray, apply)

    return jax.make_jaxpr(flat)(*closed.in_avals)


def interpret(
    jaxpr: Jaxpr,
    consts: Sequence[Any],
    args: Sequence[Value],
    constant: Callable[[Any], Value],
    apply: Callable[[JaxprEqn, list[Value]], Sequence[Value]],
) -> list[Value]:
    """Evaluate a jaxpr on values of any kind, and return its results.

    Args:
        jaxpr: the jaxpr, open.
        consts: an array for each of its constants.
        args: a value for each of its inputs.
        constant: from an array to its value.
        apply: from an equation and the values of its operands to those of its results.
    """
    values: dict[Var, Value] = {}

    def read(atom: Any) -> Value:
        is_literal = isinstance(atom, Literal)
        return constant(np.asarray(atom.val, atom.aval.dtype)) if is_literal else values[atom]

    values.update(zip(jaxpr.constvars, map(constant, consts), strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    for equation in jaxpr.eqns:
        results = apply(equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]
