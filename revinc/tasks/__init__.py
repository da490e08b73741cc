"""What is learned: one file for each task, what they have in common, and the registry that names them."""

from revinc.tasks.modular_addition import ModularAddition
from revinc.tasks.registry import TASKS, make_task
from revinc.tasks.reverse_increment import ReverseIncrement
from revinc.tasks.task import Task, predicted_positions, reading_cells

__all__ = [
    "TASKS",
    "ModularAddition",
    "ReverseIncrement",
    "Task",
    "make_task",
    "predicted_positions",
    "reading_cells",
]
