"""A task of one's own: known by where it is imported from, and refused in a sentence if it does not fit together."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from revinc import Task, TrainConfig, UserError
from revinc.tasks import DrawnTask, check_task, find_task

MODULE = """
from dataclasses import dataclass
import numpy as np
from revinc.tasks import Task

@dataclass(frozen=True)
class TwoDigits(Task):
    n: int = 3
    vocabulary = ("a", "b", "c")

    def sequences(self):
        return [[a, a] for a in range(self.n)]

    def loss_mask(self):
        return np.array([False, True])

@dataclass
class Changeable(Task):
    sequences = loss_mask = vocabulary = None

number = 3
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """The name of a module of one's own in the current directory."""
    (tmp_path / "own_tasks_here.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_tasks_here", raising=False)
    return "own_tasks_here"


def test_a_task_in_the_current_directory_is_known_by_its_module_and_class(own_module, tutorial):
    task = find_task(f"{own_module}:TwoDigits")()
    assert task.name == "own_tasks_here:TwoDigits"
    assert task.title == "Two digits"
    assert task.position_labels == ("0", "1")
    assert task.description == "Each sequence holds 0, 1. The model predicts 1."
    cfg = dataclasses.replace(tutorial, task=task, train_fraction=0.7, batch_size=1)
    assert cfg.to_dict()["task"] == {"name": "own_tasks_here:TwoDigits", "n": 3}
    assert TrainConfig.from_dict(cfg.to_dict()) == cfg


def test_its_sequences_are_made_once_and_kept_as_int32(own_module):
    task = find_task(f"{own_module}:TwoDigits")()
    assert task.sequences() is task.sequences()
    assert task.sequences().dtype == np.int32
    assert not task.sequences().flags.writeable


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("no_such_module:TwoDigits", "ModuleNotFoundError"),
        ("own_tasks_here:OneDigit", "AttributeError"),
        ("own_tasks_here:number", "is not the class of a task"),
        ("own_tasks_here:Task", "is not the class of a task"),
        ("own_tasks_here:Changeable", "frozen"),
        (":TwoDigits", "can't be imported"),
        ("__main__:TwoDigits", "put its class into a module"),
        ("two_digits", "your own as module:Class"),
        (3, "unknown"),
        (None, "unknown"),
    ],
)
def test_what_is_no_task_is_refused(own_module, refuses_in_one_line, name, phrase):
    with refuses_in_one_line(UserError, name, phrase):
        find_task(name)


def test_a_task_inside_a_function_is_refused(tutorial):
    @dataclasses.dataclass(frozen=True)
    class Inside(Whole):
        pass

    with pytest.raises(UserError, match=r"locals.*can't be imported"):
        dataclasses.replace(tutorial, task=Inside())


@dataclasses.dataclass(frozen=True)
class Whole(Task):
    """A task that fits together; each of those below has one part that does not fit."""

    vocabulary = ("0", "1")

    def sequences(self):
        return np.array([[0, 0], [1, 1]])

    def loss_mask(self):
        return np.array([False, True])


class BeyondVocabulary(Whole):
    vocabulary = ("0",)


class AskedFirst(Whole):
    def loss_mask(self):
        return np.array([True, True])


class NothingAsked(Whole):
    def loss_mask(self):
        return np.array([False, False])


class MaskTooLong(Whole):
    def loss_mask(self):
        return np.array([False, True, True])


class LabelMissing(Whole):
    position_labels = ("x",)


class SourceTooMany(Whole):
    sources = (0, 0)


class Halves(Whole):
    def sequences(self):
        return np.array([[0.5, 0.5]])


class OneRow(Whole):
    def sequences(self):
        return np.array([0, 1])


@dataclasses.dataclass(frozen=True)
class Shuffled(DrawnTask):
    vocabulary = ("0", "1")
    n_words = 1

    def draw(self, words):
        return np.column_stack([words < np.median(words)] * 2).astype(int)

    def loss_mask(self):
        return np.array([False, True])


@pytest.mark.parametrize(
    ("task", "phrase"),
    [
        (BeyondVocabulary(), "vocabulary"),
        (AskedFirst(), "loss_mask"),
        (NothingAsked(), "loss_mask"),
        (MaskTooLong(), "loss_mask"),
        (LabelMissing(), "position_labels"),
        (SourceTooMany(), "sources"),
        (Halves(), "token ids"),
        (OneRow(), "token ids"),
        (Shuffled(), "own row of words"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_parts_that_do_not_fit_are_named(refuses_in_one_line, task, phrase):
    check_task(Whole())
    with refuses_in_one_line(UserError, type(task).__name__, phrase):
        check_task(task)
