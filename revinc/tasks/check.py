"""Checks that the parts of a task fit together, before a model trains on it."""

from __future__ import annotations

import dataclasses
import functools
import json
import reprlib
from typing import Any, cast

import numpy as np

from revinc.errors import UserError, shown
from revinc.tasks import task_parts
from revinc.tasks.task import SAMPLE, DrawnTask, Task, drawn_ids, example_words
from revinc.tasks.task_parts import refuse, telling
from revinc.validation import plain

SIZES = (1, 2, 7, 64, SAMPLE)
"""Numbers of rows of words drawn at a time, to test that an example depends only on its own row."""


def recordable(task: Any) -> Task:
    """The task as it would be read back from a run's config; a UserError if that changes it.

    Args:
        task: the task.

    Raises:
        UserError: if it is not a task, or a record of its fields gives another task.
    """
    if not isinstance(task, Task) or not dataclasses.is_dataclass(task):
        raise UserError(f"task must be a Task such as Copy(length=4), not {shown(task)}")
    if not isinstance(task.name, str):
        raise UserError(f"the name of a task must be a string, not {shown(task.name)}")
    return _recordable(*_with_types(task))


def check_task(task: Task) -> None:
    """Raise a UserError if a part of a task, such as its loss mask, does not fit the others."""
    recordable(task)
    _check_parts(*_with_types(task))


def _with_types(task: Task) -> tuple[Task, tuple[type, ...]]:
    """A cache key that distinguishes equal fields of different types, such as 2 and 2.0."""
    fields = dataclasses.fields(cast(Any, task))
    with telling(task.name, "hashing it"):
        hash(task)
        return task, tuple(type(getattr(task, field.name)) for field in fields)


@functools.lru_cache(maxsize=64)
def _recordable(task: Task, _: tuple[type, ...]) -> Task:
    with telling(task.name, "recording its fields"):
        fields = dataclasses.asdict(cast(Any, task))
        written = json.dumps(fields, default=_plain)
        again = type(task)(**json.loads(written))
        if dataclasses.asdict(cast(Any, again)) != fields:
            raise UserError(
                f"task {task.name} can't be written to a run's config: its fields would be read "
                f"back as {reprlib.repr(written)}, which makes another task; let them be int, "
                "float, str or bool"
            )
    return again


def _plain(value: Any) -> Any:
    if (scalar := plain(value)) is value:
        raise TypeError(f"a JSON record can't hold {shown(value)}")
    return scalar


@functools.lru_cache(maxsize=64)
def _check_parts(task: Task, _: tuple[type, ...]) -> None:
    task_parts.vocabulary(task)
    task_parts.loss_mask(task)
    is_drawn = task_parts.is_drawn(task)
    tokens = task_parts.part(task, "sequences")
    task_parts.solved(task)
    labels = task_parts.labels_of(task, "position_labels")
    if len(labels) != tokens.shape[1]:
        refuse(
            task, f"it has {len(labels)} position_labels for sequences of {tokens.shape[1]} tokens"
        )
    for name in ("title", "description"):
        task_parts.printable(task, name, task_parts.part(task, name))
    _check_sources(task, tokens)
    if is_drawn:
        _check_draw(task)


def _check_sources(task: Task, tokens: np.ndarray) -> None:
    sources, answers = task_parts.ints_of(task, "sources"), task_parts.ints_of(task, "answers")
    if not sources:
        return
    predicted = np.flatnonzero(task_parts.loss_mask(task))
    if len(sources) != len(predicted):
        refuse(task, "its sources must hold a position for every predicted token, or be empty")
    for source, position in zip(sources, predicted.tolist(), strict=True):
        if not 0 <= source < position:
            refuse(
                task,
                f"its sources must be positions before those that they decide, and position "
                f"{position} can't be decided by position {source}",
            )
    n_tokens, last = len(task_parts.vocabulary(task)), int(tokens[:, list(sources)].max())
    if len(answers) <= last:
        refuse(
            task,
            f"its answers must cover every token id at its sources, 0 to {last}, and there are "
            f"{len(answers)}",
        )
    if min(answers) < 0 or max(answers) >= n_tokens:
        refuse(
            task, f"its answers must be token ids from 0 to {n_tokens - 1}, not {shown(answers)}"
        )
    if (np.array(answers)[tokens[:, list(sources)]] != tokens[:, predicted]).any():
        refuse(
            task,
            "its answers disagree with its sequences, where other tokens follow from the sources",
        )


def _check_draw(task: Task) -> None:
    if not isinstance(task, DrawnTask):
        refuse(task, "its is_drawn is True, so it must derive from DrawnTask")
    words = example_words(task, 0, "sample", 0, SAMPLE)
    whole = drawn_ids(task, words, "sample")
    for size in SIZES:
        rows = np.arange(SAMPLE)[::-1][:size]
        if not np.array_equal(drawn_ids(task, words[rows], "sample"), whole[rows]):
            refuse(
                task, "its draw() must make each example from the example's own row of words alone"
            )
