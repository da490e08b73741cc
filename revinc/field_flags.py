"""Command-line flags made from the fields of a dataclass."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from revinc.config_fields import alternatives, help_of, type_hints
from revinc.flag_values import integer, number

Parser = Callable[[str], Any]

READERS: dict[Any, Parser] = {
    int: integer,
    float: number,
    str: str,
    tuple[str, ...]: lambda text: tuple(text.split(",")),
}
"""The function that parses a flag's text, by the type of its field."""


def add_fields(
    group: argparse._ArgumentGroup,
    owner: type,
    fields: Iterable[dataclasses.Field[Any]],
    defaults: object,
    axes: Mapping[str, Parser],
    whose: str = "tutorial",
) -> None:
    """Add a command-line flag for each of the given fields of a dataclass.

    A flag that is not given leaves no attribute in the parsed namespace.

    Args:
        group: the parser, or group of a parser, that gets the flags.
        owner: the dataclass, whose type hints say how a flag's text is parsed.
        fields: those of its fields that become flags.
        defaults: an object with the values that the help shows.
        axes: fields that take several values, each with the function that parses their text.
        whose: what the help calls the values of `defaults`.
    """
    hints = type_hints(owner)
    for field in fields:
        hint = hints[field.name]
        how: dict[str, Any]
        if hint is bool:
            how = {"action": argparse.BooleanOptionalAction}
        elif field.name in axes:
            how = {"type": axes[field.name], "metavar": f"{_metavar(hint)},.."}
        else:
            how = {"type": _parser_of(hint), "metavar": _metavar(hint)}
        group.add_argument(
            "--" + field.name.replace("_", "-"),
            default=argparse.SUPPRESS,
            help=field_help(field, defaults, whose),
            **how,
        )


def field_help(field: dataclasses.Field[Any], defaults: object, whose: str = "tutorial") -> str:
    """The help text of the flag for a config field, which ends with the field's default value."""
    return f"{help_of(field)} ({whose}: {getattr(defaults, field.name, None)})".strip()


def _metavar(hint: Any) -> str:
    return {int: "N", float: "X"}.get(alternatives(hint)[0], "NAME")


def _parser_of(hint: Any) -> Parser:
    """The parser of a flag's text for a type hint; if None is allowed, it also takes ``none``."""
    kind, *others = alternatives(hint)
    parse = READERS[kind]
    if not others:
        return parse
    return lambda text: None if text.lower() == "none" else parse(text)
