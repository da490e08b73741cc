"""The tasks that models learn: a file for each, their base classes, and a registry of names."""

from revinc.config_fields import described
from revinc.tasks.any_input import AnyInput
from revinc.tasks.brackets import Brackets
from revinc.tasks.check import check_task, recordable
from revinc.tasks.copying import Copy
from revinc.tasks.cumulative_sum import CumulativeSum
from revinc.tasks.induction import Induction
from revinc.tasks.modular_addition import ModularAddition
from revinc.tasks.registry import (
    TASKS,
    build_task,
    check_has_field,
    check_known,
    find_task,
    make_task,
    task_flag,
)
from revinc.tasks.reverse_increment import ReverseIncrement
from revinc.tasks.sorting import Sort
from revinc.tasks.task import (
    SAMPLE,
    DrawnTask,
    Task,
    draw_examples,
    eval_positions,
    reading_cells,
)
from revinc.tasks.trusted_import import recorded_task

__all__ = [
    "SAMPLE",
    "TASKS",
    "AnyInput",
    "Brackets",
    "Copy",
    "CumulativeSum",
    "DrawnTask",
    "Induction",
    "ModularAddition",
    "ReverseIncrement",
    "Sort",
    "Task",
    "build_task",
    "check_has_field",
    "check_known",
    "check_task",
    "described",
    "draw_examples",
    "eval_positions",
    "find_task",
    "make_task",
    "reading_cells",
    "recordable",
    "recorded_task",
    "task_flag",
]
