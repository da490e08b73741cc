"""The text of a program in C++: straight-line code in which every scalar is a vector of lanes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jax_revinc.engines.fused.dag import PARAMETER, TOKEN, Node, Program, Scalar
from jax_revinc.engines.fused.order import Unit

CHUNK = 300
"""Numbers between two barriers: enough to schedule within, few enough to stay near."""

PATTERNS = {
    **{
        op: f"{{}} {sign} {{}}"
        for op, sign in {"add": "+", "sub": "-", "mul": "*", "and": "&"}.items()
    },
    **{
        op: f"{{}} {sign} {{}}"
        for op, sign in {
            "lt": "<",
            "le": "<=",
            "gt": ">",
            "ge": ">=",
            "eq": "==",
            "ne": "!=",
        }.items()
    },
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


def kernel(program: Program, ordered: Sequence[Unit]) -> tuple[str, int]:
    """A function that adds the outputs of one example to `g`, and the numbers that it keeps in `s` meanwhile."""
    names = {unit.node.id for unit in ordered}
    at: dict[int, list[int]] = {}
    for i, output in enumerate(program.outputs):
        if isinstance(output, Node):
            at.setdefault(output.id, []).append(i)

    def expression(scalar: Scalar) -> str:
        if not isinstance(scalar, Node):
            return f"(I{{}} + {scalar})" if isinstance(scalar, int) else f"every({literal(scalar)})"
        if scalar.op == PARAMETER:
            return f"every(p[{scalar.args[0]}])"
        if scalar.op == TOKEN:
            return f"t[{scalar.args[0]}]"
        return f"v{scalar.id}" if scalar.id in names else f"({written(scalar)})"

    def written(node: Node) -> str:
        return PATTERNS[node.op].format(*map(expression, node.args))

    last_chunk = {}
    for k, unit in enumerate(ordered):
        last_chunk.update({node.id: k // CHUNK for node in unit.reads})
    lines: list[str] = []
    free: list[int] = []
    slots: dict[int, int] = {}
    n_slots = 0
    for start in range(0, len(ordered), CHUNK):
        chunk = start // CHUNK
        lines.append("{")
        here = set()
        for unit in ordered[start : start + CHUNK]:
            for node in unit.reads:
                if node.id in slots and node.id not in here:
                    here.add(node.id)
                    lines.append(f"const V v{node.id} = s[{slots[node.id]}];")
            id = unit.node.id
            here.add(id)
            lines.append(f"const V v{id} = {written(unit.node)};")
            lines += [f"g[{i}] += v{id};" for i in at.get(id, ())]
            if last_chunk.get(id, chunk) > chunk:
                if not free:
                    free.append(n_slots)
                    n_slots += 1
                slots[id] = free.pop()
                lines.append(f"s[{slots[id]}] = v{id};")
        lines.append("BARRIER }")
        for id in [id for id in slots if last_chunk[id] == chunk]:
            free.append(slots.pop(id))
    for i, output in enumerate(program.outputs):
        if not isinstance(output, Node):
            lines.append(f"g[{i}] += {literal(output)};")
        elif output.is_leaf:
            lines.append(f"g[{i}] += {expression(output)};")
    return "\n".join(lines), n_slots


def literal(number: float) -> str:
    if math.isnan(number):
        return "F(NAN)"
    if math.isinf(number):
        return "INF" if number > 0 else "-INF"
    return f"F({float(number)!r})"
