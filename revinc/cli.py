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
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from revinc.config import SEEDS, TrainConfig, train_fields
from revinc.errors import UserError, near_names
from revinc.model_config import HookedTransformerConfig
from revinc.presets import PRESETS
from revinc.runs import CONFIG, Run
from revinc.tasks import TASKS, make_task
from revinc.tracking import SINKS
from revinc.trainer import Diverged, Interrupted

DEFAULT_PRESET = "tutorial"

Parser = Callable[[str], Any]


def run_command(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> int:
    """Parse, call the subcommand's function, and turn what goes wrong into one sentence.

    Returns the exit status: 0, 2 for bad input, 1 for a diverged run, 130 after Ctrl-C.
    """
    args = parser.parse_args(argv)
    command: Callable[[argparse.Namespace], int | None] = args.command
    try:
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


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """The run folder, and a flag for every field of the model, the task and the training."""
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in RUN")
    parser.add_argument(
        "--seed", type=int, default=argparse.SUPPRESS, help="sets init, data and split seed"
    )
    parser.add_argument(
        "--log",
        action="append",
        default=[],
        metavar="NAME",
        help=f"send metrics there as well, may be repeated: {', '.join(SINKS)} (extra: tracking)",
    )
    recipe = add_recipe_flags(parser)
    (snapshots,) = (field for field in train_fields() if field.name == "snapshots")
    recipe.add_argument(
        "--snapshots",
        nargs="+",
        metavar="STEP",
        default=argparse.SUPPRESS,
        help=_help(snapshots, PRESETS[DEFAULT_PRESET]),
    )


def add_recipe_flags(
    parser: argparse.ArgumentParser, axes: Mapping[str, Parser] | None = None
) -> argparse._ArgumentGroup:
    """A flag for the preset and for every field of the model, the task and the training but its snapshots.

    Args:
        parser: what gets them.
        axes: fields that take several values, and what makes those of a flag's text.

    Returns:
        The group of the training's flags.
    """
    parser.add_argument(
        "--preset",
        default=argparse.SUPPRESS,
        help=f"recipe that the other flags change: {', '.join(PRESETS)} (default: {DEFAULT_PRESET})",
    )
    defaults = PRESETS[DEFAULT_PRESET]
    training = parser.add_argument_group("training")
    for_training = [field for field in train_fields() if field.name != "snapshots"]
    _add_fields(training, TrainConfig, for_training, defaults, axes or {})
    task = parser.add_argument_group("task")
    task.add_argument("--task", default=argparse.SUPPRESS, help=f"one of: {', '.join(TASKS)}")
    for task_type in TASKS.values():
        _add_fields(task, task_type, dataclasses.fields(task_type), defaults.task, {})
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
) -> None:
    hints = typing.get_type_hints(owner)
    for field in fields:
        flag = "--" + field.name.replace("_", "-")
        help_text = _help(field, defaults)
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


def _help(field: dataclasses.Field[Any], defaults: object) -> str:
    return f"{field.metadata['help']} (tutorial: {getattr(defaults, field.name, None)})"


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


def config_from_flags(args: argparse.Namespace, base: TrainConfig | None = None) -> TrainConfig:
    """The preset, or `base`, or the run that is resumed, changed by the flags that were given.

    The model's `d_vocab` and `n_ctx` follow the task unless they are given.

    Raises:
        UserError: for values that the configs refuse.
    """
    given = vars(args)
    base = _base(given, base)
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


def _base(given: dict[str, Any], base: TrainConfig | None) -> TrainConfig:
    if base is not None and "preset" in given:
        raise UserError("--preset and --like exclude each other; choose one")
    if base is None and "preset" not in given and given["resume"]:
        base = Run.load(given["out"]).config if (given["out"] / CONFIG).exists() else None
    preset = given.get("preset", DEFAULT_PRESET)
    if preset not in PRESETS:
        raise UserError(
            f"preset {preset!r} is unknown{near_names(preset, PRESETS)} (known: {', '.join(PRESETS)})"
        )
    return base or PRESETS[preset]


def _changed_task(base: TrainConfig, given: dict[str, Any]) -> Any:
    name = given.get("task", base.task.name)
    every_field = (field for task_type in TASKS.values() for field in dataclasses.fields(task_type))
    flags = _given(given, every_field)
    kept = dataclasses.asdict(typing.cast(Any, base.task)) if name == base.task.name else {}
    return make_task(name, **kept | flags)


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
