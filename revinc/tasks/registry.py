"""The tasks that a config may name."""

from __future__ import annotations

import dataclasses
from typing import Any

from revinc.errors import UserError, near_names
from revinc.tasks.modular_addition import ModularAddition
from revinc.tasks.reverse_increment import ReverseIncrement
from revinc.tasks.task import Task

TASKS: dict[str, Any] = {
    task_type.name: task_type for task_type in (ReverseIncrement, ModularAddition)
}
"""Every task that a config may name. To train your own, add it: ``TASKS[MyTask.name] = MyTask``."""


def make_task(name: Any, **fields: Any) -> Task:
    """The task registered as `name`, built from its dataclass fields.

    Raises:
        UserError: if the name or one of the fields is unknown.
    """
    if not isinstance(name, str) or name not in TASKS:
        hint = near_names(str(name), TASKS)
        raise UserError(f"task {name!r} is unknown{hint} (known: {', '.join(TASKS)})")
    task_type = TASKS[name]
    known = [field.name for field in dataclasses.fields(task_type)]
    for field in fields:
        if field not in known:
            raise UserError(f"task {name} has no field {field!r}{near_names(field, known)}")
    task: Task = task_type(**fields)
    return task
