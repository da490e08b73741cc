"""A task whose words, as far as a task may choose them, and names mean something to a terminal, to Rich and to a browser."""

from dataclasses import dataclass

import numpy as np

from revinc.tasks import Task

WORDS = ("[/b]", "<script>alert(1)</script>", "\u202ered", ":smile:", "a\nb\tc")
SHOWN = (
    "[/b]",
    "<script>alert(1)</script>",
    r"\u202ered",
    ":smile:",
    r"a\nb\tc",
)
"""The words as a person reads them."""


@dataclass(frozen=True)
class Hostile(Task):
    """``[a, b, a]``."""

    vocabulary = WORDS
    title = "[red]<b>title\u2066"
    description = "[/i]<img src=x onerror=alert(1)>\u202d"
    position_labels = ("<i>from[/q]", "\u202eto\n", "<b>answer")
    sources = (0,)
    answers = (0, 1, 2, 3, 4)

    def sequences(self):
        a, b = np.divmod(np.arange(25), 5)
        return np.stack([a, b, a], axis=1)

    def loss_mask(self):
        return np.array([False, False, True])
