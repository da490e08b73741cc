"""The text of a program in C++: straight-line code in which every scalar is a vector of lanes."""

from __future__ import annotations

import math
import sys
from collections.abc import Container
from typing import NamedTuple

from jax_revinc.engines.fused.chunks import CHUNK, Chunks, Scratch
from jax_revinc.engines.fused.dag import PARAMETER, TOKEN, Node, Program, Scalar
from jax_revinc.engines.fused.units import named_numbers

PATTERNS = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "gt": "{} > {}",
    "ge": "{} >= {}",
    "eq": "{} == {}",
    "ne": "{} != {}",
    "and": "{} & {}",
    "neg": "-{}",
    "not": "~{}",
    "rcp": "F(1) / {}",
    "max": "larger({}, {})",
    "exp": "exponential({})",
    "log": "logarithm({})",
    "tanh": "hyperbolic_tangent({})",
    "erfc": "complementary_error_function({})",
    "sqrt": "square_root({})",
    "select": "{0} ? {2} : {1}",
    "add_where": "{1} ? {0} + {2} : {0}",
    "to_float": "__builtin_convertvector({}, V)",
}
"""How every operation is written. The functions are those of ``vectors.hpp``."""


class Kernel(NamedTuple):
    """Statements that compute a program.

    Attributes:
        parts: to be run in order. `p` are the parameters, scalars or vectors, `t` the tokens, `g` the outputs, and `s`
            what is kept from part to part.
        n_kept: the most numbers that are kept.
    """

    parts: list[str]
    n_kept: int


def kernel(program: Program, assign: str, longest: int = CHUNK) -> Kernel:
    """The kernel of a program.

    Args:
        assign: ``=`` or ``+=``, for the outputs.
        longest: numbers of a part, at most.
    """
    units = named_numbers(program)
    chunks = Chunks(units, longest)
    unit_of = {unit.node.id: unit for unit in units}
    outputs: dict[int, list[int]] = {}
    for i, output in enumerate(program.outputs):
        if isinstance(output, Node):
            outputs.setdefault(output.id, []).append(i)
    scratch = Scratch()
    parts = []
    for k, chunk in enumerate(chunks.units):
        lines: list[str] = []
        here: set[int] = set()

        def name(node: Node, lines: list[str] = lines, here: set[int] = here) -> None:
            """Have a number from before under its name."""
            if node.is_leaf or node.id in here:
                return
            here.add(node.id)
            if node.id in chunks.again:
                for operand in unit_of[node.id].reads:
                    name(operand)
                lines.append(f"const V v{node.id} = {written(node, unit_of)};")
            else:
                lines.append(f"const V v{node.id} = s[{scratch.places[node.id]}];")

        for unit in chunk:
            id = unit.node.id
            for node in unit.reads:
                name(node)
            lines.append(f"const V v{id} = {written(unit.node, unit_of)};")
            here.add(id)
            lines += [f"g[{i}] {assign} v{id};" for i in outputs.get(id, ())]
            if chunks.last_read.get(id, k) > k and id not in chunks.again:
                lines.append(f"s[{scratch.keep(id)}] = v{id};")
        scratch.forget(id for id in scratch.places if chunks.last_read[id] == k)
        parts.append("\n".join(lines))
    parts.append(
        "\n".join(
            f"g[{i}] {assign} {operand(output, unit_of)};"
            for i, output in enumerate(program.outputs)
            if not isinstance(output, Node) or output.id not in unit_of
        )
    )
    return Kernel(parts, scratch.size)


def rule_text(rule: Program) -> str:
    """The statements of a program that is small enough for one part."""
    parts, n_kept = kernel(rule, "=", longest=sys.maxsize)
    assert not n_kept
    return "\n".join(parts)


def written(node: Node, named: Container[int]) -> str:
    """The expression of a node, in terms of names."""
    return PATTERNS[node.op].format(*(operand(arg, named) for arg in node.args))


def operand(scalar: Scalar, named: Container[int]) -> str:
    """How a scalar is written inside an expression."""
    if isinstance(scalar, float):
        return f"every({literal(scalar)})"
    if not isinstance(scalar, Node):
        return f"(I{{}} + {scalar})"
    if scalar.op == PARAMETER:
        return f"every(p[{scalar.args[0]}])"
    if scalar.op == TOKEN:
        return f"t[{scalar.args[0]}]"
    return f"v{scalar.id}" if scalar.id in named else f"({written(scalar, named)})"


def literal(number: float) -> str:
    if math.isnan(number):
        return "F(NAN)"
    if math.isinf(number):
        return "INF" if number > 0 else "-INF"
    return f"F({number!r})"
