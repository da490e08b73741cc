"""Which of a program's numbers are given names, in whatever language it is written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jax_revinc.engines.fused.dag import FLOAT, Node, Program, uses


class Unit(NamedTuple):
    """A number that is given a name, and the nodes it is written in terms of.

    What lies between them is written inside its expression: truth values and integers, which are cheap, and
    products that are added to something, once, which is one instruction.
    """

    node: Node
    reads: tuple[Node, ...]


def named_numbers(program: Program) -> list[Unit]:
    """The named numbers of a program, in order of creation.

    That is the order of JAX's own equations, in which what is needed next is near: sorting further for registers
    and caches made nothing faster where it was tried.
    """
    nodes = program.nodes()
    unnamed = without_name(program, nodes)

    def reads(node: Node) -> list[Node]:
        found = []
        for operand in node.operands:
            found += reads(operand) if operand.id in unnamed else [operand]
        return found

    named = (node for node in nodes if node.id not in unnamed and not node.is_leaf)
    return [Unit(node, tuple(dict.fromkeys(reads(node)))) for node in named]


def without_name(program: Program, nodes: Sequence[Node]) -> set[int]:
    """The ids of what is written where it is used."""
    outputs = {output.id for output in program.outputs if isinstance(output, Node)}
    users = uses(nodes)
    unnamed = {node.id for node in nodes if node.kind != FLOAT and not node.is_leaf}
    for node in nodes:
        if node.op in ("add", "sub"):
            products = [
                operand
                for operand in node.operands
                if operand.op == "mul" and len(users[operand.id]) == 1 and operand.id not in outputs
            ]
            unnamed |= {product.id for product in products[-1:]}
    return unnamed
