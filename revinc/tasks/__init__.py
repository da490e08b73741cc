"""What is learned: one file for each task, what they have in common, and the registry that names them."""

from revinc.fields import described
from revinc.tasks.any_input import AnyInput
from revinc.tasks.brackets import Brackets
from revinc.tasks.check import check_task
from revinc.tasks.copying import Copy
from revinc.tasks.cumulative_sum import CumulativeSum
from revinc.tasks.induction import Induction
from revinc.tasks.modular_addition import ModularAddition
from revinc.tasks.registry import TASKS, check_has_field, check_known, find_task, make_task
from revinc.tasks.reverse_increment import ReverseIncrement
from revinc.tasks.sorting import Sort
from revinc.tasks.task import (
    SAMPLE,
    DrawnTask,
    Task,
    draw_examples,
    predicted_positions,
    reading_cells,
)

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
    "check_has_field",
    "check_known",
    "check_task",
    "described",
    "draw_examples",
    "find_task",
    "make_task",
    "predicted_positions",
    "reading_cells",
]
