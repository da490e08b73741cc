"""The task to tell whether every bracket that opens is closed, and in its turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int, UInt64

from revinc.errors import UserError
from revinc.fields import described
from revinc.tasks.task import DrawnTask
from revinc.validation import require_int

OPEN, CLOSE, UNBALANCED, BALANCED, BOS = range(5)

MOST_PAIRS = 512


@dataclass(frozen=True, kw_only=True)
class Brackets(DrawnTask):
    """``[BOS, b0 .. b(2n-1), answer]``: whether `pairs` opening and as many closing brackets are balanced.

    Half of the examples are, and all have as many brackets of either kind, so counting does not tell. That is no
    list of all strings, of which few are balanced: so examples are drawn, whatever their size.

    Raises:
        UserError: for fewer than 1 pair or more than 512.
    """

    name: ClassVar[str] = "brackets"

    pairs: int = described(6, help="opening brackets of a string, and as many closing ones")

    def __post_init__(self) -> None:
        require_int("pairs", self.pairs, at_least=1)
        if self.pairs > MOST_PAIRS:
            raise UserError(f"pairs must be at most {MOST_PAIRS}, not {self.pairs}")

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return ("(", ")", "unbalanced", "balanced", "BOS")

    @property
    def position_labels(self) -> tuple[str, ...]:
        return ("BOS", *(f"b{i}" for i in range(2 * self.pairs)), "answer")

    @property
    def title(self) -> str:
        return "Balanced brackets"

    @property
    def description(self) -> str:
        return (
            f"After BOS come {self.pairs} opening and {self.pairs} closing brackets. "
            "The model predicts whether they are balanced, which half of all strings are."
        )

    def loss_mask(self) -> Bool[np.ndarray, " seq"]:
        return np.arange(2 + 2 * self.pairs) == 1 + 2 * self.pairs

    @property
    def n_words(self) -> int:
        return 2 + 2 * self.pairs

    def draw(self, words: UInt64[np.ndarray, "n n_words"]) -> Int[np.ndarray, "n seq"]:
        is_balanced = words[:, 0] < 2**63
        strings = np.where(is_balanced[:, None], balanced(words[:, 1:]), unbalanced(words[:, 1:-1]))
        answers = np.where(is_balanced, BALANCED, UNBALANCED)
        return np.column_stack([np.full(len(words), BOS), strings, answers])


def balanced(words: UInt64[np.ndarray, "n odd"]) -> Int[np.ndarray, "n even"]:
    """Balanced strings, each as likely, one bracket shorter than the rows of words.

    A shuffled string with one closing bracket too many has just one rotation that is balanced but for its last
    bracket: that from where it first is deepest on (the cycle lemma of Dvoretzky and Motzkin, Duke Math. J. 14, 1947).
    """
    steps = shuffled_steps(words, n_up=words.shape[1] // 2)
    deepest = steps.cumsum(axis=1).argmin(axis=1)
    places = (deepest[:, None] + 1 + np.arange(words.shape[1])) % words.shape[1]
    return as_brackets(np.take_along_axis(steps, places, axis=1)[:, :-1])


def unbalanced(words: UInt64[np.ndarray, "n even"]) -> Int[np.ndarray, "n even"]:
    """Strings with as many brackets of either kind that are not balanced, each as likely.

    Each is a string with two closing brackets too many, turned over from where it first closes too much on
    (André's reflection, C. R. Acad. Sci. 105, 1887).
    """
    steps = shuffled_steps(words, n_up=words.shape[1] // 2 - 1)
    first = (steps.cumsum(axis=1) < 0).argmax(axis=1)
    is_after = np.arange(words.shape[1]) > first[:, None]
    return as_brackets(np.where(is_after, -steps, steps))


def shuffled_steps(words: UInt64[np.ndarray, "n steps"], n_up: int) -> Int[np.ndarray, "n steps"]:
    """`n_up` times +1 and else -1 in a row, in the order of random words."""
    return np.where(words.argsort(axis=1, kind="stable") < n_up, 1, -1)


def as_brackets(steps: Int[np.ndarray, "n steps"]) -> Int[np.ndarray, "n steps"]:
    """The token of every step."""
    return np.where(steps > 0, OPEN, CLOSE)
