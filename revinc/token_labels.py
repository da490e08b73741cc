"""Labels of tokens and positions, for tables, pages and sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from revinc.tasks import Task


def token_label(task: Task, token: int) -> str:
    """The label of a token id in a task's vocabulary, or ``#id`` if the vocabulary lacks it."""
    return task.vocabulary[token] if token < len(task.vocabulary) else f"#{token}"


def sequence_labels(task: Task, tokens: Sequence[int] | Int[np.ndarray, " pos"]) -> list[str]:
    """The labels of a sequence's tokens with their positions, such as ``BOS, x0=2, x1=0``."""
    beyond = map(str, range(len(task.position_labels), len(tokens)))
    positions = (*task.position_labels, *beyond)
    words = [token_label(task, int(token)) for token in tokens]
    return [
        word if word == position else f"{position}={word}"
        for position, word in zip(positions, words, strict=False)
    ]


def next_labels(task: Task, n_positions: int) -> list[str]:
    """For each input position, the label of the token to be predicted there, or ``""``."""
    asked = task.loss_mask()[1 : n_positions + 1]
    names = [
        name if is_asked else ""
        for name, is_asked in zip(task.position_labels[1:], asked, strict=False)
    ]
    return names + [""] * (n_positions - len(names))


def which_sequences(task: Task) -> str:
    """How many sequences of a task are analysed, in words: ``all 256``, or ``1,024 drawn``."""
    n = f"{len(task.sequences()):,}"
    return f"{n} drawn" if task.is_drawn else f"all {n}"
