"""A program as a graph of scalars: every element of every array is a node, or a number that is known.

Knows nothing of JAX and nothing of the language it is written out in.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import NamedTuple

from jax_revinc.engines.fused.errors import NotFusible

MOST_NODES = 600_000
"""Nodes that a graph may have before those that nothing depends on are dropped: minutes of building."""

FLOAT = "float"
"""The kind of real numbers."""

INT = "int"
"""The kind of small integers with known bounds."""

MASK = "mask"
"""The kind of truth values."""

PARAMETER = "parameter"
"""The operation of a parameter. Its only argument is an index, not a scalar."""

TOKEN = "token"
"""The operation of a token id, likewise."""


class Node:
    """One scalar operation.

    Attributes:
        id: its number, in order of creation; arguments come before what uses them.
        op: what is done, such as ``"mul"``.
        args: its operands.
        kind: of its value.
        bounds: the least and the largest value, of an integer.
    """

    __slots__ = ("args", "bounds", "id", "kind", "op")

    def __init__(
        self, id: int, op: str, args: tuple[Scalar, ...], kind: str, bounds: tuple[int, int]
    ) -> None:
        self.id = id
        self.op = op
        self.args = args
        self.kind = kind
        self.bounds = bounds

    @property
    def operands(self) -> list[Node]:
        """Those arguments that are computed."""
        return [arg for arg in self.args if isinstance(arg, Node)]

    @property
    def is_leaf(self) -> bool:
        return self.op in (PARAMETER, TOKEN)


Scalar = Node | float | int | bool


class Graph:
    """Makes nodes; the same operation on the same operands is the same node.

    Raises:
        NotFusible: where there are more than `MOST_NODES`.
    """

    def __init__(self) -> None:
        self._n_nodes = 0
        self._made: dict[Hashable, Node] = {}

    def make(
        self, op: str, *args: Scalar, kind: str = FLOAT, bounds: tuple[int, int] = (0, 0)
    ) -> Node:
        """The node that does `op` on `args`."""
        # The kind of a number is part of what it is: True and 1.0 are equal, and hash as such.
        key = (op, *[arg.id if isinstance(arg, Node) else (type(arg), repr(arg)) for arg in args])
        node = self._made.get(key)
        if node is None:
            if self._n_nodes == MOST_NODES:
                raise NotFusible(f"it has more than {MOST_NODES} scalar operations")
            node = self._made[key] = Node(self._n_nodes, op, args, kind, bounds)
            self._n_nodes += 1
        return node


class Program(NamedTuple):
    """What is computed from one example.

    Attributes:
        outputs: what is summed over examples.
        n_parameters: numbers that all examples share.
        n_tokens: integers of one example.
        origin: the text of what it was made from.
    """

    outputs: tuple[Scalar, ...]
    n_parameters: int
    n_tokens: int
    origin: str = ""

    def nodes(self) -> list[Node]:
        """Everything that an output depends on, operands first, by order of creation."""
        found: dict[int, Node] = {}
        waiting = [output for output in self.outputs if isinstance(output, Node)]
        while waiting:
            node = waiting.pop()
            if node.id not in found:
                found[node.id] = node
                waiting += node.operands
        return [found[id] for id in sorted(found)]


def uses(nodes: Iterable[Node]) -> dict[int, list[Node]]:
    """By a node's id, the nodes that have it among their operands, once each."""
    users: dict[int, list[Node]] = {node.id: [] for node in nodes}
    for node in nodes:
        for operand in dict.fromkeys(node.operands):
            users[operand.id].append(node)
    return users
