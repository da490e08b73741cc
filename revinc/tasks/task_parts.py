"""Reading and checking the parts of a task, such as its vocabulary; errors name the part."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
from jaxtyping import Bool, Int

from revinc.errors import UserError, one_line, shown
from revinc.validation import plain

if TYPE_CHECKING:
    from revinc.tasks.task import DrawnTask, Task

MOST_WORDS = 2**16
"""The largest number of random words per example: then 1024 examples take half a gigabyte."""


def refuse(task: Task, problem: str) -> NoReturn:
    """Raise a UserError that says why the parts of a task do not fit together."""
    raise UserError(f"task {task.name} does not fit together: {problem}")


@contextmanager
def telling(name: str, part: str) -> Iterator[None]:
    """A context manager that turns errors in a task's code into a UserError that says where."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"task {name} has faulty code: {part} raised {type(error).__name__}: {one_line(error)}"
        ) from error


def part(task: Task, name: str) -> Any:
    """The value of a task's property, or of its method without arguments, as a Python value."""
    with telling(task.name, name):
        found = getattr(task, name)
        return plain(found() if name in ("loss_mask", "sequences") else found)


def vocabulary(task: Task) -> tuple[str, ...]:
    """The vocabulary of a task, checked: the label of every token id."""
    labels = labels_of(task, "vocabulary")
    if not labels or len(set(labels)) < len(labels):
        refuse(task, "its vocabulary must hold a label for every token id, and no label twice")
    return labels


def loss_mask(task: Task) -> Bool[np.ndarray, " seq"]:
    """The loss mask of a task, checked: True at the tokens that must be predicted."""
    mask = part(task, "loss_mask")
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.ndim != 1:
        refuse(task, f"its loss_mask must be a NumPy array of True and False, not {shown(mask)}")
    if not mask.any() or mask[0]:
        refuse(task, "its loss_mask must be False at the first token and True at one of the others")
    return mask


@functools.lru_cache(maxsize=64)  # every batch of examples is checked against it
def layout(task: Task) -> tuple[int, int]:
    """The length of a task's sequences, and the size of its vocabulary."""
    return len(loss_mask(task)), len(vocabulary(task))


def labels_of(task: Task, name: str) -> tuple[str, ...]:
    """The attribute `name` of a task, checked to be a tuple of printable strings."""
    return tuple(printable(task, name, label) for label in tuple_of(task, name, str, "strings"))


def printable(task: Task, name: str, text: Any) -> str:
    """`text`, from a task's attribute `name`, checked to be a string that can be printed."""
    if not isinstance(text, str):
        refuse(task, f"its {name} must be a string, not {shown(text)}")
    odd = [c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n"]
    if odd:
        refuse(
            task, f"its {name} has {odd[0]!r}, which can't be printed; write it as printable text"
        )
    return text


def ints_of(task: Task, name: str) -> tuple[int, ...]:
    """The attribute `name` of a task, checked to be a tuple of integers."""
    return tuple(map(int, tuple_of(task, name, Integral, "integers")))


def tuple_of(task: Task, name: str, kind: type, kinds: str) -> tuple[Any, ...]:
    """The attribute `name` of a task, checked to be a tuple of instances of the class `kind`."""
    values = part(task, name)
    if not isinstance(values, tuple):
        refuse(task, f"its {name} must be a tuple of {kinds}, not {shown(values)}")
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            refuse(task, f"its {name} must be a tuple of {kinds}, and has {shown(value)}")
    return values


def solved(task: Task) -> float:
    """The accuracy from which a task counts as solved, checked to be above 0 and at most 1."""
    share = part(task, "solved")
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 < cast(Any, share) <= 1:
        refuse(
            task,
            f"its solved must be an accuracy above 0 and at most 1, not {shown(share)}",
        )
    return float(share)


def n_words(task: DrawnTask) -> int:
    """How many random 64-bit words a task needs to draw one example, checked."""
    n = part(task, "n_words")
    if not isinstance(n, Integral) or isinstance(n, bool) or not 1 <= int(n) <= MOST_WORDS:
        refuse(task, f"its n_words must be an integer from 1 to {MOST_WORDS}, not {shown(n)}")
    return int(n)


def is_drawn(task: Task) -> bool:
    """Whether a task draws its examples at random, as there are too many to list; checked."""
    answer = part(task, "is_drawn")
    if not isinstance(answer, bool):
        refuse(task, f"its is_drawn must be True or False, not {shown(answer)}")
    return answer


def token_ids(
    task: Task, made: Any, method: str, stream: str = "", first: int = 0
) -> Int[np.ndarray, "n seq"]:
    """Sequences that a task's method made, as int32, checked to be token ids of its vocabulary.

    Args:
        task: the task.
        made: [n, seq], integers of any width.
        method: the method that made them, for errors.
        stream: the random stream of the examples, for errors.
        first: the number of the first example in that stream.

    Raises:
        UserError: if they are not token ids, naming the first example with an id outside of the
            vocabulary.
    """
    with telling(task.name, method):
        ids = np.asarray(made)
    if ids.ndim != 2 or not ids.size or ids.dtype.kind not in "iu":
        refuse(
            task,
            f"its {method} must give sequences of token ids, [n_sequences, seq], not {ids.dtype} "
            f"{list(ids.shape)}",
        )
    n_positions, n_tokens = layout(task)
    if ids.shape[1] != n_positions:
        refuse(
            task,
            f"its {method} gives sequences of {ids.shape[1]} tokens, and its loss_mask has "
            f"{n_positions} entries",
        )
    if ids.min() < 0 or ids.max() >= n_tokens:
        row, place = np.argwhere((ids < 0) | (ids >= n_tokens))[0]
        of_stream = f" of its {stream}" if stream else ""
        refuse(
            task,
            f"example {first + row}{of_stream} has the token id {ids[row, place]}, and its "
            f"vocabulary names {n_tokens}, from 0 to {n_tokens - 1}",
        )
    return np.array(ids, dtype=np.int32, order="C")
