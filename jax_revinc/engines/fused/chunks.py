"""A program cut into chunks, and how its numbers get from one chunk to later ones: kept, or made again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from jax_revinc.engines.fused.units import Unit

CHUNK = 150
"""Numbers of a chunk: enough to schedule within, few enough that a CPU has all its instructions at hand."""

CHEAP = {"add", "sub", "mul", "neg", "max", "select", "add_where"}
"""Operations that cost no more than to keep their result and to fetch it."""


class Chunks:
    """Units in a row, cut into chunks.

    Attributes:
        units: of every chunk.
        last_read: by a node's id, the last chunk that reads it, if one does.
        again: the ids of what later chunks make again, from what is there at that time anyway.
    """

    def __init__(self, units: Sequence[Unit], longest: int = CHUNK) -> None:
        self.units = [units[start : start + longest] for start in range(0, len(units), longest)]
        self.last_read = {
            node.id: k
            for k, chunk in enumerate(self.units)
            for unit in chunk
            for node in unit.reads
        }
        self.again = made_again(self.units, self.last_read)


def made_again(chunks: Sequence[Sequence[Unit]], last_read: Mapping[int, int]) -> set[int]:
    """The ids of cheap numbers all of whose operands are there as long as they are read themselves."""
    reads = (node for chunk in chunks for unit in chunk for node in unit.reads)
    there_until: dict[int, float] = {node.id: math.inf for node in reads if node.is_leaf}
    again = set()
    for k, chunk in enumerate(chunks):
        for unit in chunk:
            id = unit.node.id
            last = there_until[id] = last_read.get(id, k)
            operands_until = min((there_until[node.id] for node in unit.reads), default=math.inf)
            if last > k and unit.node.op in CHEAP and operands_until >= last:
                again.add(id)
                there_until[id] = operands_until
    return again


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
