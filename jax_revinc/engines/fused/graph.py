"""Computation graphs of scalar operations: an element of a JAX array is a node or a constant.

It depends neither on JAX nor on the language of the generated code.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jax_revinc.engines.fused.errors import NotFusible

MOST_NODES = 600_000
"""The most nodes of a graph, unused ones included: more would take minutes to build."""

FLOAT = "float"
"""The kind of real numbers."""

INT = "int"
"""The kind of small integers with known bounds."""

MASK = "mask"
"""The kind of truth values."""

PARAMETER = "parameter"
"""The operation of a parameter. Its only argument is the parameter's index."""

TOKEN = "token"
"""The operation of a token id. Its only argument is the token's position."""


@dataclass(slots=True, eq=False)
class Node:
    """A node of a computation graph: one scalar operation on nodes and constants.

    Attributes:
        id: the number of the node in order of creation; operands come before their users.
        op: the operation, such as ``"mul"``.
        args: the operands.
        kind: of the value: `FLOAT`, `INT` or `MASK`.
        bounds: the least and the largest value of an integer.
    """

    id: int
    op: str
    args: tuple[Scalar, ...]
    kind: str
    bounds: tuple[int, int]

    @property
    def operands(self) -> list[Node]:
        """The operands of this node that are themselves nodes of the graph, not constants."""
        return [arg for arg in self.args if isinstance(arg, Node)]

    @property
    def is_leaf(self) -> bool:
        return self.op in (PARAMETER, TOKEN)


Scalar = Node | float | int | bool
"""A node, or a constant."""

Scalars = np.ndarray
"""An array of `Scalar`."""


class Graph:
    """A computation graph to which nodes are added, but never two for the same operation on the
    same operands.
    """

    def __init__(self) -> None:
        self._n_nodes = 0
        self._made: dict[Hashable, Node] = {}

    def make(
        self, op: str, *args: Scalar, kind: str = FLOAT, bounds: tuple[int, int] = (0, 0)
    ) -> Node:
        """Make the node of the operation `op` on the operands `args`, or return the existing one.

        Raises:
            NotFusible: if there would be more than `MOST_NODES`.
        """
        # The type of a constant is part of the key: True and 1.0 are equal, and hash as such.
        key = (op, *[arg.id if isinstance(arg, Node) else (type(arg), repr(arg)) for arg in args])
        node = self._made.get(key)
        if node is None:
            if self._n_nodes == MOST_NODES:
                raise NotFusible(
                    "the computation is too large for the fused engine: it has more than "
                    f"{MOST_NODES} scalar operations"
                )
            node = self._made[key] = Node(self._n_nodes, op, args, kind, bounds)
            self._n_nodes += 1
        return node


class Program(NamedTuple):
    """A computation on a model's parameters and the tokens of one example, as a graph of scalar
    operations.

    Attributes:
        outputs: the results.
        n_parameters: parameters that it may read.
        n_tokens: tokens of an example.
        origin: the jaxpr that it was traced from, as text.
    """

    outputs: tuple[Scalar, ...]
    n_parameters: int
    n_tokens: int
    origin: str = ""

    def nodes(self) -> list[Node]:
        """The graph nodes that the program's outputs depend on, in order of creation."""
        found: dict[int, Node] = {}
        waiting = [output for output in self.outputs if isinstance(output, Node)]
        while waiting:
            node = waiting.pop()
            if node.id not in found:
                found[node.id] = node
                waiting += node.operands
        return [found[id] for id in sorted(found)]


def users_of(nodes: Iterable[Node]) -> dict[int, list[Node]]:
    """Map each node's id to the node's users, which are the nodes that have it as an operand."""
    users: dict[int, list[Node]] = {node.id: [] for node in nodes}
    for node in nodes:
        for operand in dict.fromkeys(node.operands):
            users[operand.id].append(node)
    return users
