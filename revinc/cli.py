"""Command-line flags for a training run, made from the configs' own fields, and error reporting.

A flag that is not given is absent, not a default: so a resume can take everything from its run and
refuse what contradicts it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from revinc.config import SEEDS, TrainConfig, train_fields
from revinc.errors import UserError, near_names
from revinc.model_config import HookedTransformerConfig
from revinc.presets import PRESETS
from revinc.runs import CONFIG, Run
from revinc.tasks import TASKS, Task, check_has_field, find_task, make_task
from revinc.trainer import Diverged, Interrupted

DEFAULT_PRESET = "tutorial"

Parser = Callable[[str], Any]
Base = Callable[[argparse.Namespace], TrainConfig]

FLAG_TYPES: tuple[Any, ...] = (int, float, str, bool)


class RecipeParser(argparse.ArgumentParser):
    """A parser that has the flags of the one task that is meant, beside those it was given.

    So it looks first for what the flags begin with (`base`, and ``--task``), and leaves it as ``base``. Flags
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
        read.base = base
        return read, unknown


def run_command(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> int:
    """Parse, call the subcommand's function, and turn what goes wrong into one sentence.

    Returns the exit status: 0, 2 for bad input, 1 for a diverged run, 130 after Ctrl-C.
    """
    try:
        args = parser.parse_args(argv)
        command: Callable[[argparse.Namespace], int | None] = args.command
        return command(args) or 0
    except Interrupted as error:
        return fail(parser, str(error), 130)
    except KeyboardInterrupt:
        return fail(parser, "interrupted", 130)
    except Diverged as error:
        return fail(parser, str(error), 1)
    except (UserError, OSError) as error:
        return fail(parser, str(error), 2)


def fail(parser: argparse.ArgumentParser, message: str, status: int) -> int:
    """Say what went wrong on stderr; returns `status`."""
    print(f"{parser.prog}: {message}", file=sys.stderr)
    return status


def add_training_flags(parser: RecipeParser, base: Base | None = None) -> None:
    """The run folder, and a flag for every field of the model, the task and the training.

    Args:
        parser: what gets them.
        base: the config that the flags change; by default the preset, or the run that is resumed.
    """
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in RUN")
    parser.add_argument(
        "--seed", type=int, default=argparse.SUPPRESS, help="sets init, data and split seed"
    )
    recipe = add_recipe_flags(parser, base or preset_or_run)
    (snapshots,) = (field for field in train_fields() if field.name == "snapshots")
    recipe.add_argument(
        "--snapshots",
        nargs="+",
        metavar="STEP",
        default=argparse.SUPPRESS,
        help=_help(snapshots, PRESETS[DEFAULT_PRESET]),
    )


def add_recipe_flags(
    parser: RecipeParser, base: Base, axes: Mapping[str, Parser] | None = None
) -> argparse._ArgumentGroup:
    """A flag for the preset and for every field of the model, the task and the training but its snapshots.

    Args:
        parser: what gets them.
        base: the config that the flags change, by what they say of it.
        axes: fields that take several values, and what makes those of a flag's text.

    Returns:
        The group of the training's flags.
    """
    parser.base = base
    parser.add_argument(
        "--preset",
        default=argparse.SUPPRESS,
        help=f"recipe that the other flags change: {', '.join(PRESETS)} (default: {DEFAULT_PRESET})",
    )
    defaults = PRESETS[DEFAULT_PRESET]
    training = parser.add_argument_group("training")
    for_training = [field for field in train_fields() if field.name != "snapshots"]
    _add_fields(training, TrainConfig, for_training, defaults, axes or {})
    parser.add_argument(
        "--task",
        default=argparse.SUPPRESS,
        help=f"one of: {', '.join(TASKS)}; or your own, as module:Class (default: the preset's)",
    )
    model = parser.add_argument_group("model (names as in TransformerLens)")
    _add_fields(model, HookedTransformerConfig, _model_fields(), defaults.model, {})
    return training


def _model_fields() -> list[dataclasses.Field[Any]]:
    """The fields of a model but its seed: a run has seeds of its own."""
    return [field for field in dataclasses.fields(HookedTransformerConfig) if field.name != "seed"]


def _add_fields(
    group: argparse._ArgumentGroup,
    owner: type,
    fields: Iterable[dataclasses.Field[Any]],
    defaults: object,
    axes: Mapping[str, Parser],
    whose: str = "tutorial",
) -> None:
    hints = typing.get_type_hints(owner)
    for field in fields:
        flag = "--" + field.name.replace("_", "-")
        help_text = _help(field, defaults, whose)
        if field.name in axes:
            group.add_argument(
                flag,
                type=axes[field.name],
                metavar=f"{_metavar(hints[field.name])},..",
                default=argparse.SUPPRESS,
                help=help_text,
            )
        elif hints[field.name] is bool:
            group.add_argument(
                flag,
                action=argparse.BooleanOptionalAction,
                default=argparse.SUPPRESS,
                help=help_text,
            )
        else:
            group.add_argument(
                flag,
                type=_parser_of(hints[field.name]),
                metavar=_metavar(hints[field.name]),
                default=argparse.SUPPRESS,
                help=help_text,
            )


def _help(field: dataclasses.Field[Any], defaults: object, whose: str = "tutorial") -> str:
    said = field.metadata.get("help", "")
    return f"{said} ({whose}: {getattr(defaults, field.name, None)})".strip()


def _metavar(hint: Any) -> str:
    return {int: "N", float: "X"}.get(_alternatives(hint)[0], "NAME")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a hint such as ``int | None``."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _parser_of(hint: Any) -> Parser:
    """What reads a value of a type: a number, a name, names with commas, or the word none where it may be None."""
    kind, *others = _alternatives(hint)
    parse: Parser = (lambda text: tuple(text.split(","))) if kind == tuple[str, ...] else kind

    def parse_or_none(text: str) -> Any:
        return None if text.lower() == "none" else parse(text)

    parse_or_none.__name__ = getattr(kind, "__name__", "value")  # argparse names it in its errors
    return parse_or_none if others else parse


def _beginning(prog: str) -> argparse.ArgumentParser:
    """Reads what the other flags begin with, and leaves these alone."""
    parser = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    for name in ("--task", "--preset"):
        parser.add_argument(name, default=argparse.SUPPRESS)
    for folder in ("--out", "--like"):
        parser.add_argument(folder, type=Path)
    parser.add_argument("--resume", action="store_true")
    return parser


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


def _add_task_flags(parser: argparse.ArgumentParser, task_type: type[Task], usual: Task) -> None:
    group = parser.add_argument_group(f"task {task_type.name}")
    fields = dataclasses.fields(cast(Any, task_type))
    hints = typing.get_type_hints(task_type)
    for field in fields:
        if _alternatives(hints[field.name])[0] not in FLAG_TYPES:
            raise UserError(
                f"task {task_type.name} can't have a flag for its field {field.name}, a {hints[field.name]}: "
                "flags are int, float, str or bool"
            )
    defaults = usual if type(usual) is task_type else task_type
    try:
        _add_fields(
            group, task_type, dataclasses.fields(cast(Any, task_type)), defaults, {}, "default"
        )
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


def config_from_flags(args: argparse.Namespace) -> TrainConfig:
    """The config that flags begin with, changed by those that were given.

    The model's `d_vocab` and `n_ctx` follow the task unless they are given.

    Raises:
        UserError: for values that the configs refuse.
    """
    given = vars(args)
    base: TrainConfig = args.base
    task = _changed_task(base, given)
    fitting = {"d_vocab": len(task.vocabulary), "n_ctx": len(task.position_labels)}
    model_flags = _given(given, _model_fields())
    model = base.model.replace(**({} if task == base.task else fitting) | model_flags)
    training = _given(given, train_fields())
    steps = training.get("steps", base.steps)
    if "snapshots" in training:
        training["snapshots"] = expand_steps(training["snapshots"], steps)
    else:
        training["snapshots"] = tuple(step for step in base.snapshots if step <= steps)
    if "seed" in given:
        seeds = dict.fromkeys(SEEDS, given["seed"])
        training = seeds | training
    return dataclasses.replace(base, model=model, task=task, **training)


def _changed_task(base: TrainConfig, given: dict[str, Any]) -> Task:
    name = given.get("task", base.task.name)
    task_type: Any = find_task(name)
    kept = dataclasses.asdict(cast(Any, base.task)) if task_type is type(base.task) else {}
    return make_task(name, **kept | _given(given, dataclasses.fields(task_type)))


def _given(given: dict[str, Any], fields: Iterable[dataclasses.Field[Any]]) -> dict[str, Any]:
    return {field.name: given[field.name] for field in fields if field.name in given}


def expand_steps(words: list[str], last: int) -> tuple[int, ...]:
    """Steps from words such as ``250`` and ``every:100``.

    Raises:
        UserError: for a word that is neither.
    """
    steps: list[int] = []
    for word in words:
        kind, _, number = word.rpartition(":")
        is_number = number.isascii() and number.isdigit()
        if kind not in ("", "every") or not is_number or (kind and int(number) == 0):
            raise UserError(
                f"snapshots: {word!r} is neither a step such as 250 nor such as every:100"
            )
        steps += range(0, last + 1, int(number)) if kind else [int(number)]
    return tuple(steps)
