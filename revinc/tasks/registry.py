"""The registry of tasks: shipped ones by short names, any other class by ``module:Class``."""

from __future__ import annotations

import dataclasses
import importlib
import shlex
import sys
from pathlib import Path
from typing import Any, cast

from revinc.config_fields import has_default
from revinc.errors import UserError, near_names, one_line, unknown_name
from revinc.tasks.brackets import Brackets
from revinc.tasks.copying import Copy
from revinc.tasks.cumulative_sum import CumulativeSum
from revinc.tasks.induction import Induction
from revinc.tasks.modular_addition import ModularAddition
from revinc.tasks.reverse_increment import ReverseIncrement
from revinc.tasks.sorting import Sort
from revinc.tasks.task import Task
from revinc.tasks.task_parts import telling

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
"""The tasks with short names. To give your own one: ``TASKS[MyTask.name] = MyTask``."""


def find_task(name: Any) -> type[Task]:
    """Find the class of a task by name: in `TASKS`, or imported, also from the current directory.

    Use it for names that the user gave; `revinc.tasks.recorded_task` is for names in files.

    Args:
        name: a name in `TASKS`, or ``module:Class``.

    Raises:
        UserError: if there is none, or it is not a frozen dataclass that derives from `Task`.
    """
    if isinstance(name, str) and name in TASKS:
        return TASKS[name]
    if is_own(name):
        refuse_scripts(name)
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.append(here)
        return import_task(name)
    raise unknown_name("task", name, TASKS, others="or your own as module:Class")


def make_task(name: Any, **fields: Any) -> Task:
    """Make a task from its name, such as ``"copy"``, and values of its fields.

    Raises:
        UserError: if the name or a field is unknown, or a field without a default is missing.
    """
    return build_task(find_task(name), fields)


def build_task(task_type: type[Task], fields: dict[str, Any]) -> Task:
    """Make an instance of a task class from values of its fields.

    Raises:
        UserError: if a field is unknown, a field without a default is missing, or the class
            refuses a value.
    """
    known = dataclasses.fields(cast(Any, task_type))
    for field in fields:
        check_has_field(task_type, field)
    missing = [f.name for f in known if not has_default(f) and f.name not in fields]
    if missing:
        raise UserError(f"task {task_type.name} needs a value for {', '.join(missing)}")
    with telling(task_type.name, "making it from its fields"):
        return task_type(**fields)


def is_own(name: Any) -> bool:
    """Whether a name is that of a task which the user wrote, of the form ``module:Class``."""
    return isinstance(name, str) and name not in TASKS and ":" in name


def task_flag(task: Task) -> str:
    """The text ``--task NAME`` to add to a command if the user wrote `task`; else ``""``."""
    return f" --task {shlex.quote(task.name)}" if is_own(task.name) else ""


def imported_task(name: str) -> type[Task] | None:
    """The task class ``module:Class`` if its module is imported already, else None."""
    module, _, class_name = name.partition(":")
    there = getattr(sys.modules.get(module), "__dict__", {}).get(class_name)
    return None if there is None else require_task_class(there, name)


def check_known(task: Task) -> None:
    """Raise a UserError unless the class of `task` can be found by the task's name."""
    name = task.name
    if is_own(name):
        refuse_scripts(name)
    found = imported_task(name) if is_own(name) else TASKS.get(name)
    if found is type(task):
        return
    if is_own(name) and found is None:
        raise UserError(
            f"task {name!r} can't be imported by that name, so a run of it could not be read "
            "again; put its class at the top level of a module"
        )
    raise UserError(
        f"task {name!r} is not registered, so a run of it could not be read again; delete the "
        "attribute 'name' of its class, or register it: "
        f"revinc.tasks.TASKS[{name!r}] = {type(task).__name__}"
    )


def check_has_field(task_type: type[Task], field: str) -> None:
    """Raise a UserError unless a task has a field of this name."""
    known = [each.name for each in dataclasses.fields(task_type)]  # type: ignore[arg-type]
    if field not in known:
        near = near_names(field, known) or f"; it has {', '.join(known) or 'none'}"
        raise UserError(f"task {task_type.name} has no field {field!r}{near}")


def refuse_scripts(name: str) -> None:
    """Raise a UserError if a task is defined in the running script, as ``__main__:Class``."""
    if name.partition(":")[0] == "__main__":
        raise UserError(
            f"task {name!r} is defined in a script, which other processes can't import; put its "
            "class into a module"
        )


def import_task(name: str) -> type[Task]:
    """Import the task class ``module:Class``, which runs the module's code.

    Raises:
        UserError: if the module can't be imported, or has no such task.
    """
    module, _, class_name = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), class_name)
    except (Exception, SystemExit) as error:  # a module may raise anything when it is imported
        raise UserError(
            f"task {name!r} can't be imported ({type(error).__name__}: {one_line(error)}); run "
            f"this where Python finds the module {module!r}, such as in its folder, and put the "
            "class at its top level"
        ) from error
    return require_task_class(found, name)


def require_task_class(found: Any, name: object) -> type[Task]:
    """The object `found`, checked to be the class of a task.

    Raises:
        UserError: naming `name`, if it is not a frozen dataclass that derives from `Task`.
    """
    is_task = isinstance(found, type) and issubclass(found, Task)
    if not is_task or not dataclasses.is_dataclass(found) or found.__hash__ is None:
        raise UserError(
            f"task {name!r} is not the class of a task: make it a dataclass(frozen=True) that "
            "derives from revinc.tasks.Task"
        )
    return cast(type[Task], found)
