"""Run a function as compiled pieces between named points, at which Python code may edit a value.

The function is traced once with a primitive at each point. Its jaxpr is cut at these, and each piece is
compiled. Between two pieces the value is a concrete array.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.extend import core
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Primitive, Var

from jax_revinc.compilation.quick_jit import may_be_quick

KEPT = 256
"""The most functions, by their shapes and points, whose pieces are kept."""

point_p = Primitive("point")
point_p.def_abstract_eval(lambda value, **_: value)


class Piece(NamedTuple):
    """A compiled piece, and the point after it."""

    run: Callable[..., list[Array]]
    needs: list[Var]
    gives: list[Var]
    point: JaxprEqn | None


class Plan(NamedTuple):
    """A function in pieces."""

    pieces: list[Piece]
    constants: dict[Var, Any]
    invars: list[Var]
    outvars: list[Any]
    tree: Any
    """The structure of the result."""


def run_pieces(
    function: Callable[..., Any],
    key: Hashable,
    arguments: tuple[Any, ...],
    points: frozenset[str],
    edit: Callable[[str, Array], Array],
    is_quick: bool,
) -> Any:
    """Compute ``function(tap, *arguments)``, where the taps of some names run as Python code.

    Args:
        function: it calls ``tap(name, value)`` at its points, and can be traced.
        key: what the function depends on beside its arguments; equal functions have equal keys.
        arguments: pytrees of concrete arrays.
        points: the names whose values are edited. Other taps do nothing.
        edit: returns the new value of a point, of the same shape and type.
        is_quick: compile by `jax_revinc.compilation.quick_jit`.
    """
    leaves, tree = jax.tree.flatten(arguments)
    types = tuple((leaf.shape, leaf.dtype, leaf.weak_type) for leaf in leaves)
    plan = _plan(Function(function, key), tree, types, points, is_quick)
    values: dict[Any, Any] = dict(plan.constants)
    values.update(zip(plan.invars, leaves, strict=True))
    for piece in plan.pieces:
        results = piece.run(*[values[var] for var in piece.needs])
        values.update(zip(piece.gives, results, strict=True))
        if piece.point is not None:
            (before,), (after,) = piece.point.invars, piece.point.outvars
            values[after] = edit(piece.point.params["name"], values[before])
    outs = [v.val if isinstance(v, Literal) else values[v] for v in plan.outvars]
    return jax.tree.unflatten(plan.tree, outs)


class Function:
    """A function that equals another one with an equal key."""

    def __init__(self, function: Callable[..., Any], key: Hashable) -> None:
        self.function, self.key = function, key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=KEPT)
def _plan(
    function: Function, tree: Any, types: tuple[Any, ...], points: frozenset[str], is_quick: bool
) -> Plan:
    structs = [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in types]

    def tap(name: str, value: Array) -> Array:
        return point_p.bind(value, name=name) if name in points else value

    def with_taps(*leaves: Any) -> Any:
        return function.function(tap, *jax.tree.unflatten(tree, leaves))

    closed, shapes = jax.make_jaxpr(with_taps, return_shape=True)(*structs)
    jaxpr = closed.jaxpr
    cuts = [i for i, equation in enumerate(jaxpr.eqns) if equation.primitive is point_p]
    begins = [0, *(cut + 1 for cut in cuts)]
    ends = [*cuts, len(jaxpr.eqns)]
    jit = may_be_quick(is_quick)
    pieces = [make_piece(jaxpr, begin, end, jit) for begin, end in zip(begins, ends, strict=True)]
    constants = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    return Plan(pieces, constants, jaxpr.invars, jaxpr.outvars, jax.tree.structure(shapes))


def make_piece(jaxpr: Jaxpr, begin: int, end: int, jit: Callable[..., Any]) -> Piece:
    """The equations of a jaxpr from `begin` to before `end`, compiled, and the point at `end`."""
    equations = jaxpr.eqns[begin:end]
    made = {var for equation in equations for var in equation.outvars}
    read = variables(v for equation in equations for v in equation.invars)
    needs = [var for var in read if var not in made]
    later = set(variables(v for e in jaxpr.eqns[end:] for v in e.invars))
    later |= set(variables(jaxpr.outvars))
    gives = [var for var in variables(v for e in equations for v in e.outvars) if var in later]
    part = Jaxpr([], needs, gives, equations, debug_info=jaxpr.debug_info)
    run = jit(core.jaxpr_as_fun(ClosedJaxpr(part, [])))
    return Piece(run, needs, gives, jaxpr.eqns[end] if end < len(jaxpr.eqns) else None)


def variables(atoms: Any) -> list[Var]:
    """The variables among inputs or outputs of equations, each once, in order."""
    return list(dict.fromkeys(atom for atom in atoms if not isinstance(atom, Literal)))
