"""The task of telling whether a string of brackets is balanced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int, UInt64

from revinc.config_fields import checks_names, described, hold_plain_values
from revinc.tasks.task import DrawnTask

OPEN, CLOSE, UNBALANCED, BALANCED, BOS = range(5)


@checks_names
@dataclass(frozen=True, kw_only=True)
class Brackets(DrawnTask):
    """Telling whether brackets are balanced: ``[BOS, b0 .. b(2n-1), answer]`` where n is `pairs`.

    Half of the examples are balanced. All have equally many brackets of both kinds, so counting
    them is not enough. Few of all such strings are balanced, so examples are drawn, never listed.

    Raises:
        UserError: for fewer than 1 pair or more than 512.
    """

    name: ClassVar[str] = "brackets"

    pairs: int = described(
        6, help="opening brackets of a string, and as many closing ones", at_least=1, at_most=512
    )

    def __post_init__(self) -> None:
        hold_plain_values(self)

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
    """Draw a balanced string from each row of random words, all strings equally likely.

    A shuffled string with one closing bracket too many has exactly one rotation that is balanced
    except for its last bracket. It begins after the first of the string's deepest positions (the
    cycle lemma of Dvoretzky and Motzkin, Duke Math. J. 14, 1947).
    """
    steps = shuffled_steps(words, n_up=words.shape[1] // 2)
    deepest = steps.cumsum(axis=1).argmin(axis=1)
    places = (deepest[:, None] + 1 + np.arange(words.shape[1])) % words.shape[1]
    return as_brackets(np.take_along_axis(steps, places, axis=1)[:, :-1])


def unbalanced(words: UInt64[np.ndarray, "n even"]) -> Int[np.ndarray, "n even"]:
    """Draw unbalanced strings with equally many brackets of both kinds, all equally likely.

    Each is a shuffled string with two closing brackets too many, whose brackets are flipped after
    the first that closes too much (André's reflection, C. R. Acad. Sci. 105, 1887).
    """
    steps = shuffled_steps(words, n_up=words.shape[1] // 2 - 1)
    first = (steps.cumsum(axis=1) < 0).argmax(axis=1)
    is_after = np.arange(words.shape[1]) > first[:, None]
    return as_brackets(np.where(is_after, -steps, steps))


def shuffled_steps(words: UInt64[np.ndarray, "n steps"], n_up: int) -> Int[np.ndarray, "n steps"]:
    """Make rows of `n_up` numbers +1 and otherwise -1, each shuffled by its row of random words."""
    return np.where(words.argsort(axis=1, kind="stable") < n_up, 1, -1)


def as_brackets(steps: Int[np.ndarray, "n steps"]) -> Int[np.ndarray, "n steps"]:
    """Convert numbers to bracket tokens: +1 to an opening bracket, -1 to a closing one."""
    return np.where(steps > 0, OPEN, CLOSE)
