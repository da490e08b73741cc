"""What is learned: every sequence of a task, and which of its tokens must be predicted."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from jaxtyping import Bool, Int

from revinc.errors import UserError, near_names
from revinc.fields import described
from revinc.validation import require_bool, require_int


class Task(Protocol):
    """A finite next-token task. Implementations are frozen dataclasses, so they hash and print."""

    name: ClassVar[str]

    def __hash__(self) -> int: ...

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The label of every token id, in order."""

    @property
    def position_labels(self) -> tuple[str, ...]:
        """The name of every position of a sequence, such as BOS, x0, ..., y3."""

    def sequences(self) -> Int[np.ndarray, "n_sequences seq"]:
        """All sequences, as int32 token ids."""

    def loss_mask(self) -> Bool[np.ndarray, " seq"]:
        """True at the tokens that must be predicted (each from the positions before it)."""

    @property
    def sources(self) -> tuple[int, ...]:
        """For every predicted token in order, the position of the token that decides it.

        Empty if no answer hangs on a single token.
        """

    @property
    def answers(self) -> tuple[int, ...]:
        """For every token id that can stand at a source, the token id that answers it. Empty like `sources`."""


@dataclass(frozen=True, kw_only=True)
class ReverseIncrement:
    """``[BOS, x0 .. x(L-1), y0 .. y(L-1)]`` where y is x reversed, plus `shift`, modulo `n_symbols`.

    The defaults are the tutorial's task: 256 sequences of 9 tokens, BOS = 4. Sequences come in the
    order of ``itertools.product``.

    Raises:
        UserError: for a size below 1, or more than 2**20 sequences.
    """

    name: ClassVar[str] = "reverse_increment"

    length: int = described(4, help="input tokens of a sequence")
    n_symbols: int = described(4, help="symbols, 0 .. n-1, that inputs and outputs are made of")
    shift: int = described(1, help="added to every symbol, modulo n-symbols")
    reverse: bool = described(True, help="whether the outputs come in reversed order")

    def __post_init__(self) -> None:
        require_int("length", self.length, at_least=1)
        require_int("n_symbols", self.n_symbols, at_least=2)
        require_int("shift", self.shift)
        require_bool("reverse", self.reverse)
        if self.length * math.log2(self.n_symbols) > 20:
            raise UserError(
                f"n_symbols={self.n_symbols} ** length={self.length} is more than 2**20 sequences; "
                "this task lists them all, so choose a smaller length or n_symbols"
            )

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return (*map(str, range(self.n_symbols)), "BOS")

    @property
    def position_labels(self) -> tuple[str, ...]:
        inputs = [f"x{i}" for i in range(self.length)]
        outputs = [f"y{i}" for i in range(self.length)]
        return ("BOS", *inputs, *outputs)

    @functools.lru_cache(maxsize=8)  # noqa: B019 - instances are small, frozen values
    def sequences(self) -> Int[np.ndarray, "n_sequences seq"]:
        inputs = np.array(
            list(itertools.product(range(self.n_symbols), repeat=self.length)), dtype=np.int32
        )
        outputs = (inputs + self.shift % self.n_symbols) % self.n_symbols
        if self.reverse:
            outputs = outputs[:, ::-1]
        bos = np.full((len(inputs), 1), self.n_symbols, dtype=np.int32)
        sequences = np.concatenate([bos, inputs, outputs], axis=1)
        sequences.flags.writeable = False
        return sequences

    def loss_mask(self) -> Bool[np.ndarray, " seq"]:
        return np.arange(1 + 2 * self.length) > self.length

    @property
    def sources(self) -> tuple[int, ...]:
        positions = tuple(range(1, self.length + 1))
        return positions[::-1] if self.reverse else positions

    @property
    def answers(self) -> tuple[int, ...]:
        return tuple((symbol + self.shift) % self.n_symbols for symbol in range(self.n_symbols))


def predicted_positions(task: Task) -> tuple[int, ...]:
    """The positions whose token must be predicted; each is predicted at the position before it."""
    return tuple(np.flatnonzero(task.loss_mask()).tolist())


def reading_cells(task: Task) -> list[tuple[int, int]]:
    """(row, column) of an attention pattern where a head that fetches the token of an answer would look.

    In the tutorial's task: y0..y3 are predicted at rows 4..7 from x3..x0, at columns 4..1.
    """
    rows = [position - 1 for position in predicted_positions(task)]
    return list(zip(rows, task.sources, strict=True)) if task.sources else []


TASKS: dict[str, Any] = {ReverseIncrement.name: ReverseIncrement}
"""Every task that a config may name. To train your own, add it: ``TASKS[MyTask.name] = MyTask``."""


def make_task(name: Any, **fields: Any) -> Task:
    """The task registered as `name`, built from its dataclass fields.

    Raises:
        UserError: if the name or one of the fields is unknown.
    """
    if not isinstance(name, str) or name not in TASKS:
        hint = near_names(str(name), TASKS)
        raise UserError(f"task {name!r} is unknown{hint} (known: {', '.join(TASKS)})")
    task_type = TASKS[name]
    known = [field.name for field in dataclasses.fields(task_type)]
    for field in fields:
        if field not in known:
            raise UserError(f"task {name} has no field {field!r}{near_names(field, known)}")
    task: Task = task_type(**fields)
    return task
