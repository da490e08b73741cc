"""Command-line flags for a training run, made from the configs' own fields, and error reporting.

A flag that is not given is absent, not a default: so a resume can take everything from its run and
refuse what contradicts it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from revinc.config import SEEDS, TrainConfig, train_fields
from revinc.errors import UserError
from revinc.field_flags import Parser, add_fields, field_help
from revinc.model_config import HookedTransformerConfig
from revinc.presets import PRESETS
from revinc.recipe_parser import DEFAULT_PRESET, Base, RecipeParser, preset_or_run
from revinc.tasks import TASKS, Task, find_task, make_task
from revinc.tracking import SINKS
from revinc.trainer import Diverged, Interrupted


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
    parser.add_argument(
        "--log",
        action="append",
        default=[],
        metavar="NAME",
        help=f"send metrics there as well, may be repeated: {', '.join(SINKS)} (extra: tracking)",
    )
    recipe = add_recipe_flags(parser, base or preset_or_run)
    (snapshots,) = (field for field in train_fields() if field.name == "snapshots")
    recipe.add_argument(
        "--snapshots",
        nargs="+",
        metavar="STEP",
        default=argparse.SUPPRESS,
        help=field_help(snapshots, PRESETS[DEFAULT_PRESET]),
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
    add_fields(training, TrainConfig, for_training, defaults, axes or {})
    parser.add_argument(
        "--task",
        default=argparse.SUPPRESS,
        help=f"one of: {', '.join(TASKS)}; or your own, as module:Class (default: the preset's)",
    )
    model = parser.add_argument_group("model (names as in TransformerLens)")
    add_fields(model, HookedTransformerConfig, _model_fields(), defaults.model, {})
    return training


def _model_fields() -> list[dataclasses.Field[Any]]:
    """The fields of a model but its seed: a run has seeds of its own."""
    return [field for field in dataclasses.fields(HookedTransformerConfig) if field.name != "seed"]


def config_from_flags(args: argparse.Namespace) -> TrainConfig:
    """The config that flags begin with, changed by those that were given.

    The model's `d_vocab` and `n_ctx` follow the task unless they are given.

    Raises:
        UserError: for values that the configs refuse.
    """
    given = vars(args)
    base: TrainConfig = args.base_config
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
