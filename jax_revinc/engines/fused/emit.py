"""The text of a program in C++: straight-line code in which every scalar is a vector of lanes."""

from __future__ import annotations

import math
from collections.abc import Iterable

from jax_revinc.engines.fused.dag import PARAMETER, TOKEN, Node, Program, Scalar
from jax_revinc.engines.fused.units import named_numbers

CHUNK = 400
"""Numbers between two barriers: enough to schedule within, few enough that a compiler stays quick."""

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


class Scratch:
    """Where numbers are kept from one chunk to later ones; a place is used again."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self.size = 0
        self._free: list[int] = []

    def keep(self, id: int) -> int:
        """The place of the number with this id, from now on."""
        if not self._free:
            self._free.append(self.size)
            self.size += 1
        self.places[id] = self._free.pop()
        return self.places[id]

    def forget(self, ids: Iterable[int]) -> None:
        self._free += [self.places.pop(id) for id in list(ids)]


def kernel(program: Program, assign: str = "=") -> tuple[str, int]:
    """Statements that assign a program's outputs to `g`, and how many numbers they keep in `s` meanwhile.

    `p` are the parameters, scalars or vectors, and `t` the tokens. With ``+=`` outputs are added up.
    """
    units = named_numbers(program)
    named = {unit.node.id for unit in units}
    outputs: dict[int, list[int]] = {}
    for i, output in enumerate(program.outputs):
        if isinstance(output, Node):
            outputs.setdefault(output.id, []).append(i)
    chunks = [units[start : start + CHUNK] for start in range(0, len(units), CHUNK)]
    last_read = {
        node.id: k for k, chunk in enumerate(chunks) for unit in chunk for node in unit.reads
    }
    scratch = Scratch()
    lines = []
    for k, chunk in enumerate(chunks):
        lines.append("BARRIER {" if k else "{")
        here = set()
        for unit in chunk:
            id = unit.node.id
            for node in unit.reads:
                if node.id in scratch.places and node.id not in here:
                    lines.append(f"const V v{node.id} = s[{scratch.places[node.id]}];")
                    here.add(node.id)
            lines.append(f"const V v{id} = {written(unit.node, named)};")
            here.add(id)
            lines += [f"g[{i}] {assign} v{id};" for i in outputs.get(id, ())]
            if last_read.get(id, k) > k:
                lines.append(f"s[{scratch.keep(id)}] = v{id};")
        lines.append("}")
        scratch.forget(id for id in scratch.places if last_read[id] == k)
    for i, output in enumerate(program.outputs):
        if not isinstance(output, Node) or output.id not in named:
            lines.append(f"g[{i}] {assign} {operand(output, named)};")
    return "\n".join(lines), scratch.size


def written(node: Node, named: set[int]) -> str:
    """The expression of a node, in terms of names."""
    return PATTERNS[node.op].format(*(operand(arg, named) for arg in node.args))


def operand(scalar: Scalar, named: set[int]) -> str:
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
