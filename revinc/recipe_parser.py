"""The parser of a recipe: which flags it has hangs on the task, and so on what else was typed."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from revinc.config import TrainConfig
from revinc.errors import UserError, near_names
from revinc.field_flags import add_fields, alternatives
from revinc.presets import PRESETS
from revinc.runs import CONFIG, Run
from revinc.tasks import TASKS, Task, check_has_field, find_task

DEFAULT_PRESET = "tutorial"

Base = Callable[[argparse.Namespace], TrainConfig]

FLAG_TYPES: tuple[Any, ...] = (int, float, str, bool)


class RecipeParser(argparse.ArgumentParser):
    """A parser that has the flags of the one task that is meant, beside those it was given.

    So it looks first for what the flags begin with (`base`, and ``--task``), and leaves it as ``base_config``. Flags
    can't be abbreviated, for what a short one means would hang on the task.
    """

    base: Base | None = None

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if self.base is None:
            return super().parse_known_args(args, namespace)
        words = sys.argv[1:] if args is None else list(args)
        begun = _beginning(self.prog).parse_known_args(words)[0]
        base = self.base(begun)
        task_type = find_task(begun.task) if "task" in begun else type(base.task)
        whole = argparse.ArgumentParser(
            prog=self.prog,
            parents=[self],
            add_help=False,
            allow_abbrev=False,
            epilog=_tasks_in_words(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_task_flags(whole, task_type, base.task)
        read, unknown = whole.parse_known_args(words, namespace)
        _refuse_others_fields(task_type, unknown)
        read.base_config = base
        return read, unknown


def preset_or_run(flags: argparse.Namespace) -> TrainConfig:
    """The preset that flags name, or else the run that they resume, or else the default preset.

    Raises:
        UserError: if the preset is unknown, or the run can't be read.
    """
    if "preset" not in flags and flags.resume and flags.out and (flags.out / CONFIG).exists():
        return Run.load(flags.out).config
    return preset(flags)


def preset(flags: argparse.Namespace) -> TrainConfig:
    """The preset that flags name, or else the default one; a UserError if it is unknown."""
    name = getattr(flags, "preset", DEFAULT_PRESET)
    if name not in PRESETS:
        raise UserError(
            f"preset {name!r} is unknown{near_names(name, PRESETS)} (known: {', '.join(PRESETS)})"
        )
    return PRESETS[name]


def _beginning(prog: str) -> argparse.ArgumentParser:
    """Reads what the other flags begin with, and leaves these alone."""
    parser = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    for name in ("--task", "--preset"):
        parser.add_argument(name, default=argparse.SUPPRESS)
    for folder in ("--out", "--like"):
        parser.add_argument(folder, type=Path)
    parser.add_argument("--resume", action="store_true")
    return parser


def _add_task_flags(parser: argparse.ArgumentParser, task_type: type[Task], usual: Task) -> None:
    group = parser.add_argument_group(f"task {task_type.name}")
    fields = dataclasses.fields(cast(Any, task_type))
    hints = typing.get_type_hints(task_type)
    for field in fields:
        if alternatives(hints[field.name])[0] not in FLAG_TYPES:
            raise UserError(
                f"task {task_type.name} can't have a flag for its field {field.name}, a {hints[field.name]}: "
                "flags are int, float, str or bool"
            )
    defaults = usual if type(usual) is task_type else task_type
    try:
        add_fields(group, task_type, fields, defaults, {}, "default")
    except argparse.ArgumentError as error:
        raise UserError(
            f"task {task_type.name} has a field with the name of another flag; give it another ({error})"
        ) from error


def _refuse_others_fields(task_type: type[Task], unknown: list[str]) -> None:
    """Raise a UserError for a flag that only another task has."""
    every_field = {
        field.name for other in TASKS.values() for field in dataclasses.fields(cast(Any, other))
    }
    for word in unknown:
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if word.startswith("--") and name.removeprefix("no_") in every_field:
            check_has_field(task_type, name.removeprefix("no_"))


def _tasks_in_words() -> str:
    first_lines = {name: str(task_type.__doc__).split("\n")[0] for name, task_type in TASKS.items()}
    lines = [f"  {name:18} {line.replace('`', '')}" for name, line in first_lines.items()]
    return "\n".join(["tasks:", *lines])
