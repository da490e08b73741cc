"""The command line of a training config: from words such as ``--lr 0.01`` to a `TrainConfig`.

The flags depend on the task, and the task depends on other flags. So `parse_config` first reads the
few flags that decide on it, then adds the flags of the task to the parser, and parses all words
once. `revinc.config_flags` is the inverse.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from revinc.config import MOST_PAUSES, SEEDS, TrainConfig, train_fields
from revinc.config_fields import SIZE, alternatives, type_hints
from revinc.errors import UserError, shown, unknown_name
from revinc.field_flags import Parser, add_fields, field_help
from revinc.flag_values import integer, path
from revinc.model_config import HookedTransformerConfig
from revinc.presets import PRESETS
from revinc.runs import CONFIG, KEPT, Run
from revinc.tasks import TASKS, Task, build_task, check_has_field, check_task, find_task
from revinc.terminal import PlainParser
from revinc.tracking import SINKS
from revinc.validation import require_int

DEFAULT_PRESET = "tutorial"

Base = Callable[[argparse.Namespace], TrainConfig]
"""The config that the flags change, from the values of ``--preset, --out, --like, --resume``."""

FLAG_TYPES: tuple[Any, ...] = (int, float, str, bool)
"""The types of a task's fields that can be flags."""


def make_config_parser(prog: str) -> argparse.ArgumentParser:
    """Make the parser of a command, to which `parse_config` adds a flag for every config field.

    Its flags can't be abbreviated: the meaning of an abbreviation would depend on the task.
    """
    return PlainParser(
        prog=prog,
        allow_abbrev=False,
        epilog=_list_of_tasks(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse_config(
    parser: argparse.ArgumentParser,
    words: Sequence[str],
    base: Base,
    axes: Mapping[str, Parser] | None = None,
) -> tuple[TrainConfig, argparse.Namespace]:
    """Parse the words of a command line into a training config and the values of all flags.

    Args:
        parser: the command's parser with its own flags; gets a flag for every field of a config.
        words: what was typed after the command's name.
        base: gives the config that the flags change.
        axes: fields of `TrainConfig` that take several values, each with the function that parses
            their text. The config takes such a value only if it is the only one of its field.

    Returns:
        The config, and the values of all flags. A field has a value there only if it was given.

    Raises:
        UserError: for values that the config refuses, or a field of another task.
        SystemExit: for words that do not parse, with the status 2; for ``--help``, with 0.
    """
    first = _deciding_flags(parser.prog, words)
    # The task that was typed is imported first: a run that is opened may need it.
    typed = find_task(first.task) if "task" in first else None
    start = base(first)
    task_type = typed or type(start.task)
    _add_config_flags(parser, axes or {})
    _add_task_flags(parser, task_type, start.task)
    flags, unknown = parser.parse_known_args(words)
    if unknown:
        _refuse_fields_of_other_tasks(task_type, unknown)
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    given = {k: values for k, values in vars(flags).items() if k not in (axes or {})}
    given |= {k: vars(flags)[k][0] for k in axes or {} if k in flags and len(vars(flags)[k]) == 1}
    return changed_config(start, given), flags


def add_verbose_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--verbose`` to a command that prints a training config."""
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="print every field of the config, and a table of the parameters of a run",
    )


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a command that trains one run: its folder, seed, snapshots and trackers."""
    parser.add_argument("--out", type=path, required=True, metavar="RUN", help="the run folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in RUN")
    add_verbose_flag(parser)
    parser.add_argument(
        "--seed", type=integer, default=argparse.SUPPRESS, help="sets init, data and split seed"
    )
    (snapshots,) = (field for field in train_fields() if field.name == "snapshots")
    parser.add_argument(
        "--snapshots",
        nargs="+",
        metavar="STEP",
        default=argparse.SUPPRESS,
        help=field_help(snapshots, PRESETS[DEFAULT_PRESET]),
    )
    parser.add_argument(
        "--keep",
        choices=KEPT,
        help="best: also keep the weights of the best evaluation, for inspect --step best",
    )
    parser.add_argument(
        "--log",
        action="append",
        default=[],
        metavar="NAME",
        help=f"also log metrics to {' or '.join(SINKS)} (needs the extra tracking); repeatable",
    )


def preset_or_run(flags: argparse.Namespace) -> TrainConfig:
    """The config that flags change: the named preset's, a resumed run's, or the default preset's.

    Raises:
        UserError: if the preset is unknown, or the run can't be read.
    """
    if "preset" not in flags and flags.resume and flags.out and (flags.out / CONFIG).exists():
        return Run.load(flags.out).config
    return preset(flags)


def preset(flags: argparse.Namespace) -> TrainConfig:
    """The config of the preset that ``--preset`` names, or else of the default preset.

    Raises:
        UserError: if the preset is unknown.
    """
    name = getattr(flags, "preset", DEFAULT_PRESET)
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]


def changed_config(base: TrainConfig, given: Mapping[str, Any]) -> TrainConfig:
    """A copy of the config `base` in which the fields named in the dict `given` have its values.

    The model's `d_vocab` and `n_ctx` follow the task unless they are given.

    Raises:
        UserError: for values that the config refuses.
    """
    task = _changed_task(base.task, given)
    check_task(task)
    fitting = {} if task == base.task else fitting_sizes(task)
    model = base.model.replace(**fitting | _given(given, _model_fields()))
    training = _given(given, train_fields())
    steps = require_int("steps", training.get("steps", base.steps), **SIZE)
    if "snapshots" in training:
        training["snapshots"] = expand_steps(training["snapshots"], steps)
    else:
        training["snapshots"] = tuple(step for step in base.snapshots if step <= steps)
    if "seed" in given:
        training = dict.fromkeys(SEEDS, given["seed"]) | training
    return dataclasses.replace(base, model=model, task=task, **training)


def fitting_sizes(task: Task) -> dict[str, int]:
    """The model sizes ``d_vocab`` and ``n_ctx`` that fit a task."""
    return {"d_vocab": len(task.vocabulary), "n_ctx": len(task.position_labels)}


def expand_steps(words: list[str], last: int) -> tuple[int, ...]:
    """Convert words of ``--snapshots``, such as ``250`` or ``every:100``, to steps up to `last`.

    Raises:
        UserError: for a word of another form, or too many steps.
    """
    steps: set[int] = set()
    for word in words:
        match = re.fullmatch(r"(every:)?([0-9]{1,20})", word)
        if match is None or (match[1] and int(match[2]) == 0):
            raise UserError(
                f"snapshots: {shown(word)} is neither a step such as 250 nor an interval such as "
                "every:100"
            )
        asked = range(0, last + 1, int(match[2])) if match[1] else [int(match[2])]
        if len(asked) > MOST_PAUSES:
            raise UserError(
                f"snapshots: {word} in {last:,} steps makes {len(asked):,} snapshots; choose at "
                f"most {MOST_PAUSES:,}"
            )
        steps.update(asked)
    return tuple(steps)


def _deciding_flags(prog: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse only the flags that decide which config to start from, and which task it has."""
    parser = PlainParser(prog=prog, add_help=False, allow_abbrev=False)
    for name in ("--task", "--preset"):
        parser.add_argument(name, default=argparse.SUPPRESS)
    for folder in ("--out", "--like"):
        parser.add_argument(folder, type=path)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_known_args(words)[0]


def _add_config_flags(parser: argparse.ArgumentParser, axes: Mapping[str, Parser]) -> None:
    parser.add_argument(
        "--preset",
        default=argparse.SUPPRESS,
        help=f"config that the other flags change: {', '.join(PRESETS)} (default: "
        f"{DEFAULT_PRESET})",
    )
    defaults = PRESETS[DEFAULT_PRESET]
    training = parser.add_argument_group("training")
    fields = [field for field in train_fields() if field.name != "snapshots"]
    add_fields(training, TrainConfig, fields, defaults, axes)
    parser.add_argument(
        "--task",
        default=argparse.SUPPRESS,
        help=f"one of: {', '.join(TASKS)}; or your own, as module:Class (default: the preset's)",
    )
    model = parser.add_argument_group("model (names as in TransformerLens)")
    add_fields(model, HookedTransformerConfig, _model_fields(), defaults.model, {})


def _add_task_flags(parser: argparse.ArgumentParser, task_type: type[Task], usual: Task) -> None:
    group = parser.add_argument_group(f"task {task_type.name}")
    fields = dataclasses.fields(cast(Any, task_type))
    hints = type_hints(task_type)
    for field in fields:
        if alternatives(hints[field.name])[0] not in FLAG_TYPES:
            raise UserError(
                f"task {task_type.name} can't have a flag for its field {field.name} of "
                f"type {hints[field.name]}: flags are int, float, str or bool"
            )
    defaults = usual if type(usual) is task_type else task_type
    try:
        add_fields(group, task_type, fields, defaults, {}, "default")
    except argparse.ArgumentError as error:
        raise UserError(
            f"task {task_type.name} has a field with the name of another flag; rename the "
            f"field ({error})"
        ) from error


def _refuse_fields_of_other_tasks(task_type: type[Task], unknown: list[str]) -> None:
    """Raise a UserError if an unknown flag is a field of another task than `task_type`."""
    every_field = {
        field.name for other in TASKS.values() for field in dataclasses.fields(cast(Any, other))
    }
    for word in unknown:
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if word.startswith("--") and name.removeprefix("no_") in every_field:
            check_has_field(task_type, name.removeprefix("no_"))


def _changed_task(base: Task, given: Mapping[str, Any]) -> Task:
    task_type: Any = find_task(given["task"]) if "task" in given else type(base)
    kept = dataclasses.asdict(cast(Any, base)) if task_type is type(base) else {}
    return build_task(task_type, kept | _given(given, dataclasses.fields(task_type)))


def _model_fields() -> list[dataclasses.Field[Any]]:
    """The fields of a model config except its seed: a run has its own seeds."""
    return [field for field in dataclasses.fields(HookedTransformerConfig) if field.name != "seed"]


def _given(given: Mapping[str, Any], fields: Iterable[dataclasses.Field[Any]]) -> dict[str, Any]:
    return {field.name: given[field.name] for field in fields if field.name in given}


def _list_of_tasks() -> str:
    first_lines = {name: str(task_type.__doc__).split("\n")[0] for name, task_type in TASKS.items()}
    lines = [f"  {name:18} {line.replace('`', '')}" for name, line in first_lines.items()]
    return "\n".join(["tasks:", *lines])
