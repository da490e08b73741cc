"""Whether the parts of a task fit together: what a task of your own may get wrong, before it trains on it."""

from __future__ import annotations

import functools

import numpy as np

from revinc.errors import UserError
from revinc.tasks.task import SAMPLE, DrawnTask, Task, example_words, predicted_positions


@functools.lru_cache(maxsize=64)
def check_task(task: Task) -> None:
    """Raise a UserError that says which part of `task` does not fit the others, if any."""
    tokens, mask = task.sequences(), task.loss_mask()
    n_tokens = len(task.vocabulary)
    seq = tokens.shape[1]
    if tokens.min() < 0 or tokens.max() >= n_tokens:
        _refuse(
            task,
            f"its sequences have token ids from {tokens.min()} to {tokens.max()}, and its vocabulary names "
            f"those from 0 to {n_tokens - 1}",
        )
    if mask.shape != (seq,) or mask.dtype != bool or mask[0] or not mask.any():
        _refuse(
            task,
            f"its loss_mask must be {seq} times True or False, as many as a sequence has tokens, False first "
            "and True somewhere",
        )
    if len(task.position_labels) != seq:
        _refuse(task, f"it has {len(task.position_labels)} position_labels for {seq} tokens")
    if task.sources and len(task.sources) != len(predicted_positions(task)):
        _refuse(task, "its sources must be one for every predicted token, or none")
    if isinstance(task, DrawnTask):
        words = example_words(task, 0, "sample", 0, SAMPLE)
        if not np.array_equal(task.draw(words)[-1:], task.draw(words[-1:])):
            _refuse(task, "it draws an example from more than the example's own row of words")


def _refuse(task: Task, problem: str) -> None:
    raise UserError(f"task {task.name} does not fit together: {problem}")
