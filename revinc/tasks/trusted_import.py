"""Finding the task that a file names, without importing modules that the user does not trust."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from revinc.errors import UserError, shown
from revinc.tasks.registry import (
    find_task,
    import_task,
    imported_task,
    is_own,
    refuse_scripts,
    require_task_class,
)
from revinc.tasks.task import Task
from revinc.user_settings import TRUSTED_MODULES, settings_file, trusted_modules


def recorded_task(name: Any, named: str | type[Task] | None = None) -> type[Task]:
    """Find the class of the task that a file names, importing only what the user trusts.

    A task that is not shipped is imported only if the user named it, by `named`, or trusts its
    module in the settings. Otherwise it must be imported already.

    Args:
        name: the task's name in the file: a short one, or ``module:Class``.
        named: the task that the user expects: a name that `find_task` takes, or a class.

    Raises:
        UserError: if there is no such task, it is not `named`, or it may not be imported.
    """
    if named is not None:
        return _as_named(name, named)
    if not is_own(name):
        return find_task(name)
    refuse_scripts(name)
    if found := imported_task(name):
        return found
    module = name.partition(":")[0]
    if any(f"{module}.".startswith(f"{trusted}.") for trusted in trusted_modules()):
        with without_working_directory():
            return import_task(name)
    task, module = shown(name), shown(module)
    raise UserError(
        f"task {task} is not imported, because that would run the code of a module {module} that a "
        f"file names; if you trust it, pass --task {task} (in Python, task={task}), or list "
        f"{module} among the {TRUSTED_MODULES} in {settings_file() or 'your settings'}"
    )


def _as_named(name: Any, named: str | type[Task]) -> type[Task]:
    found = require_task_class(named, named) if isinstance(named, type) else find_task(named)
    if name != found.name:
        raise UserError(
            f"the recorded task is {shown(name)}, not {found.name!r}; pass the recorded task"
        )
    return found


@contextmanager
def without_working_directory() -> Iterator[None]:
    """A context manager in which Python imports no modules from the current directory.

    ``python -m`` searches that directory first, and files of others may lie there.
    """
    before = list(sys.path)
    if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):  # noqa: PTH109
        del sys.path[0]
    try:
        yield
    finally:
        sys.path[:] = before
