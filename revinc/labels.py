"""The words for tokens and positions, wherever a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from revinc.tasks import Task


def token_label(task: Task, token: int) -> str:
    """The vocabulary's word for a token id; an output beyond the vocabulary shows its id."""
    return task.vocabulary[token] if token < len(task.vocabulary) else f"#{token}"


def sequence_labels(task: Task, tokens: Sequence[int] | Int[np.ndarray, " pos"]) -> list[str]:
    """Position and token of a sequence or a part of it, such as ``BOS, x0=2, x1=0``."""
    beyond = map(str, range(len(task.position_labels), len(tokens)))
    positions = (*task.position_labels, *beyond)
    words = [token_label(task, int(token)) for token in tokens]
    return [
        word if word == position else f"{position}={word}"
        for position, word in zip(positions, words, strict=False)
    ]


def next_labels(task: Task, n_positions: int) -> list[str]:
    """For each of the first positions, the name of the token that it must predict, or ``""``."""
    asked = task.loss_mask()[1 : n_positions + 1]
    names = [
        name if is_asked else ""
        for name, is_asked in zip(task.position_labels[1:], asked, strict=False)
    ]
    return names + [""] * (n_positions - len(names))


def percent(solved: float) -> str:
    """The accuracy from which a split is solved, such as ``100%``."""
    return f"{100 * solved:g}%"


def which_sequences(task: Task) -> str:
    """Which a task's `sequences` are: ``all 256``, or ``1,024 drawn`` that stand for the others."""
    n = f"{len(task.sequences()):,}"
    return f"{n} drawn" if task.is_drawn else f"all {n}"
