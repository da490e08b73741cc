"""Flags made from the fields of a dataclass, each with its type, its help and no default."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Parser = Callable[[str], Any]


def add_fields(
    group: argparse._ArgumentGroup,
    owner: type,
    fields: Iterable[dataclasses.Field[Any]],
    defaults: object,
    axes: Mapping[str, Parser],
    whose: str = "tutorial",
) -> None:
    """A flag for each of `fields`, which are some of the dataclass `owner`.

    Args:
        group: what gets them.
        owner: whose type hints say how a flag is read.
        fields: which.
        defaults: has the values that the help shows.
        axes: fields that take several values, and what makes those of a flag's text.
        whose: what the help calls the values of `defaults`.
    """
    hints = typing.get_type_hints(owner)
    for field in fields:
        flag = "--" + field.name.replace("_", "-")
        help_text = field_help(field, defaults, whose)
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


def field_help(field: dataclasses.Field[Any], defaults: object, whose: str = "tutorial") -> str:
    """What a field is for, and its value in `defaults`."""
    said = field.metadata.get("help", "")
    return f"{said} ({whose}: {getattr(defaults, field.name, None)})".strip()


def _metavar(hint: Any) -> str:
    return {int: "N", float: "X"}.get(alternatives(hint)[0], "NAME")


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a hint such as ``int | None``."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _parser_of(hint: Any) -> Parser:
    """What reads a value of a type: a number, a name, names with commas, or the word none where it may be None."""
    kind, *others = alternatives(hint)
    parse: Parser = (lambda text: tuple(text.split(","))) if kind == tuple[str, ...] else kind

    def parse_or_none(text: str) -> Any:
        return None if text.lower() == "none" else parse(text)

    parse_or_none.__name__ = getattr(kind, "__name__", "value")  # argparse names it in its errors
    return parse_or_none if others else parse
