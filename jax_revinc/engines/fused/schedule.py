"""Choose the nodes of a computation graph that become C++ statements, and cut the list of
statements into segments of code.

A value that a later segment reads is either stored in a slot or recomputed there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jax_revinc.engines.fused.graph import FLOAT, Node, Program, users_of

STATEMENTS = 150
"""The most statements of a segment, so that its code fits the instruction cache."""

CHEAP = {"add", "sub", "mul", "neg", "max", "select", "add_where"}
"""Operations that cost no more than to store their result and load it."""


class Statement(NamedTuple):
    """A C++ statement to generate: it assigns the value of a graph node to a variable.

    Some nodes have no statement, but are written inside the expressions that use them: truth values
    and integers, which are cheap, and a product that is added once, which is one instruction.

    Attributes:
        node: is computed.
        reads: the leaves, and the nodes with a statement, in its expression.
    """

    node: Node
    reads: tuple[Node, ...]


Segment = Sequence[Statement]
"""Statements of one function of the generated code."""


class Schedule:
    """The C++ statements of a computation graph, cut into segments that fit the instruction cache.

    Statements stay in the order of JAX's equations, where values are used soon after they are
    computed. Sorting them for registers and caches made nothing faster where it was tried.

    Args:
        program: what is computed.
        longest: the most statements of a segment.

    Attributes:
        statements: by the id of their node.
        segments: the same, cut.
        last_read: by a node's id, the number of the last segment that reads it.
        recomputed: ids of nodes that later segments recompute rather than load from a slot.
    """

    def __init__(self, program: Program, longest: int = STATEMENTS) -> None:
        statements = statements_of(program)
        self.statements = {statement.node.id: statement for statement in statements}
        self.segments: list[Segment] = [
            statements[start : start + longest] for start in range(0, len(statements), longest)
        ]
        self.last_read = {
            node.id: k
            for k, segment in enumerate(self.segments)
            for statement in segment
            for node in statement.reads
        }
        self.recomputed = self._cheap_to_recompute()

    def is_stored(self, id: int, k: int) -> bool:
        """Whether a node's value, computed in code segment `k`, is stored for later segments."""
        return self.last_read.get(id, k) > k and id not in self.recomputed

    def _cheap_to_recompute(self) -> set[int]:
        """The ids of nodes that later segments recompute: their operation is cheap, and their
        operands are still available there.
        """
        available_until: dict[int, float] = {
            node.id: math.inf
            for statement in self.statements.values()
            for node in statement.reads
            if node.is_leaf
        }
        recomputed = set()
        for k, segment in enumerate(self.segments):
            for node, reads in segment:
                last = available_until[node.id] = self.last_read.get(node.id, k)
                operands_until = min((available_until[x.id] for x in reads), default=math.inf)
                if last > k and node.op in CHEAP and operands_until >= last:
                    recomputed.add(node.id)
                    available_until[node.id] = operands_until
        return recomputed


class Slots:
    """Numbered places in memory that keep values from one segment of the code for later ones. A
    slot is reused when its value is no longer needed.

    Attributes:
        of: the slot of a stored value, by its node's id.
        size: slots that are needed.
    """

    def __init__(self) -> None:
        self.of: dict[int, int] = {}
        self.size = 0
        self._free: list[int] = []

    def store(self, id: int) -> int:
        """Reserve a slot for the value of a node, and return the slot's number."""
        if not self._free:
            self._free.append(self.size)
            self.size += 1
        self.of[id] = self._free.pop()
        return self.of[id]

    def free(self, ids: Iterable[int]) -> None:
        """Release the slots of these nodes, so that other values can use them."""
        self._free += [self.of.pop(id) for id in list(ids)]


def statements_of(program: Program) -> list[Statement]:
    """The C++ statements of a computation graph, in the order in which its nodes were made."""
    nodes = program.nodes()
    inlined = inlined_ids(program, nodes)

    def reads(node: Node) -> list[Node]:
        found = []
        for operand in node.operands:
            found += reads(operand) if operand.id in inlined else [operand]
        return found

    assigned = (node for node in nodes if node.id not in inlined and not node.is_leaf)
    return [Statement(node, tuple(dict.fromkeys(reads(node)))) for node in assigned]


def inlined_ids(program: Program, nodes: Sequence[Node]) -> set[int]:
    """The ids of nodes that get no C++ statement of their own, but are written inside the
    expressions that use them.
    """
    outputs = {output.id for output in program.outputs if isinstance(output, Node)}
    users = users_of(nodes)
    inlined = {node.id for node in nodes if node.kind != FLOAT and not node.is_leaf}
    for node in nodes:
        if node.op in ("add", "sub"):
            products = [
                operand
                for operand in node.operands
                if operand.op == "mul" and len(users[operand.id]) == 1 and operand.id not in outputs
            ]
            inlined |= {product.id for product in products[-1:]}
    return inlined
