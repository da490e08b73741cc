"""The tasks that a config may name: those that come with the program, and any class that can be imported."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any, cast

from revinc.errors import UserError, near_names
from revinc.tasks.brackets import Brackets
from revinc.tasks.copying import Copy
from revinc.tasks.cumulative_sum import CumulativeSum
from revinc.tasks.induction import Induction
from revinc.tasks.modular_addition import ModularAddition
from revinc.tasks.reverse_increment import ReverseIncrement
from revinc.tasks.sorting import Sort
from revinc.tasks.task import Task

TASKS: dict[str, type[Task]] = {
    task_type.name: task_type
    for task_type in (
        ReverseIncrement,
        ModularAddition,
        Copy,
        Sort,
        Induction,
        CumulativeSum,
        Brackets,
    )
}
"""Every task that has a short name. Yours needs none; to give it one: ``TASKS[MyTask.name] = MyTask``."""


def find_task(name: Any) -> type[Task]:
    """The class of the task that `TASKS` has as `name`, or that ``module:Class`` imports.

    Modules in the current directory are found too.

    Raises:
        UserError: if there is none, or it is no frozen dataclass that derives from `Task`.
    """
    if isinstance(name, str) and name in TASKS:
        return TASKS[name]
    if isinstance(name, str) and ":" in name:
        return _imported(name)
    raise UserError(
        f"task {name!r} is unknown{near_names(str(name), TASKS)} "
        f"(known: {', '.join(TASKS)}, and your own as module:Class)"
    )


def make_task(name: Any, **fields: Any) -> Task:
    """The task known as `name` to `find_task`, built from its dataclass fields.

    Raises:
        UserError: if the name or one of the fields is unknown, or a field without a default is missing.
    """
    task_type = find_task(name)
    known = dataclasses.fields(task_type)  # type: ignore[arg-type]
    for field in fields:
        check_has_field(task_type, field)
    missing = [f.name for f in known if f.default is dataclasses.MISSING and f.name not in fields]
    if missing:
        raise UserError(f"task {name} needs {', '.join(missing)}")
    return task_type(**fields)


def check_known(task: Task) -> None:
    """Raise a UserError unless `find_task` finds the class of `task` by its name."""
    found = find_task(task.name) if ":" in task.name else TASKS.get(task.name)
    if found is not type(task):
        raise UserError(
            f"task {task.name!r} is not registered, so a run of it could not be read again; leave its name "
            f"out, or first: revinc.tasks.TASKS[{task.name!r}] = {type(task).__name__}"
        )


def check_has_field(task_type: type[Task], field: str) -> None:
    """Raise a UserError unless a task has a field of this name."""
    known = [each.name for each in dataclasses.fields(task_type)]  # type: ignore[arg-type]
    if field not in known:
        near = near_names(field, known) or f"; it has {', '.join(known) or 'none'}"
        raise UserError(f"task {task_type.name} has no field {field!r}{near}")


def _imported(name: str) -> type[Task]:
    module, _, class_name = name.partition(":")
    if module == "__main__":
        raise UserError(
            f"task {name!r} is of a script, where no other process finds it; put its class into a module"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), class_name)
    except Exception as error:  # whatever the module does when it is imported
        raise UserError(
            f"task {name!r} can't be imported ({type(error).__name__}: {error}); run this where Python finds "
            f"the module {module!r}, such as in its folder, and the class at its top level"
        ) from error
    is_task = isinstance(found, type) and issubclass(found, Task)
    if not is_task or not dataclasses.is_dataclass(found) or found.__hash__ is None:
        raise UserError(
            f"task {name!r} is no task: make it a dataclass(frozen=True) that derives from revinc.tasks.Task"
        )
    return cast(type[Task], found)
