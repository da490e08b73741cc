"""Config fields with metadata: a help text, bounds or choices, and when they have an effect.

Configs, command-line flags and the docs all read these from the field.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from revinc.errors import UserError, near_names, shown
from revinc.validation import (
    require_bool,
    require_choice,
    require_choices,
    require_instance,
    require_int,
    require_ints,
    require_number,
)

T = TypeVar("T")

DERIVED: Any = None
"""The default of a field that, left out, takes the value that TransformerLens would derive."""

SIZE: dict[str, Any] = {"at_least": 1, "below": 2**31}
"""The bounds of sizes and counts: 32-bit integers hold them."""

SEED: dict[str, Any] = {"at_least": 0, "below": 2**32}
"""The bounds of seeds."""


class Condition(NamedTuple):
    """A condition on the other fields of a config, without which a field has no effect.

    Attributes:
        words: the condition for an error message, such as ``attn_only=False``.
        holds: whether a config, or any object with its fields, satisfies it.
    """

    words: str
    holds: Callable[[Any], bool]


def described(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    needs: Condition | None = None,
    **rules: Any,
) -> Any:
    """Make a dataclass field with a help text and rules for its values.

    Args:
        default: the value of a field that is left out; without one the field is required.
        help: what the field means, for ``--help`` and the docs.
        needs: the condition without which the field has no effect: then it must keep its default.
        rules: of a number `at_least`, `at_most`, `above` and `below`; of a name `choices`.
    """
    metadata = {"help": help, "needs": needs, "rules": rules}
    return dataclasses.field(default=default, metadata=metadata)


def rules_of(field: dataclasses.Field[Any]) -> Mapping[str, Any]:
    """The bounds or choices that `described` gave a field, by name; empty if there are none."""
    rules: Mapping[str, Any] = field.metadata.get("rules", {})
    return rules


def help_of(field: dataclasses.Field[Any]) -> str:
    """The help text of a field, with the names to choose from if it takes names."""
    choices = rules_of(field).get("choices", ())
    text = str(field.metadata.get("help", ""))
    return f"{text}; one of {', '.join(map(str, choices))}" if choices else text


def fields_without_effect(cls: type, config: Any) -> dict[str, Condition]:
    """The fields of `cls` that have no effect in `config`, each with the condition it needs."""
    needs = {field.name: field.metadata.get("needs") for field in dataclasses.fields(cls)}
    return {name: need for name, need in needs.items() if need and not need.holds(config)}


def check_effects(config: Any) -> None:
    """Raise a UserError if `config` sets a field that has no effect with its other fields."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name, condition in fields_without_effect(type(config), config).items():
        value = getattr(config, name)
        if value != defaults[name]:
            raise UserError(
                f"{name}={value!r} has no effect unless {condition.words}; leave it out"
            )


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Split a type hint such as ``int | None`` into its types, here ``int`` and ``NoneType``."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


PARSERS: dict[Any, Callable[..., Any]] = {
    int: require_int,
    float: require_number,
    bool: require_bool,
    str: require_choice,
    tuple[int, ...]: require_ints,
    tuple[str, ...]: require_choices,
}
"""The function that checks and converts a field's value, by the field's type."""


def parse_fields(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check values for fields of the dataclass `cls`, and convert them to plain Python values.

    Args:
        cls: the dataclass.
        given: values of some of its fields, by name.

    Raises:
        UserError: naming a field whose value is of another type or breaks the field's rules.
    """
    hints = type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    return {name: _parse(fields[name], hints[name], value) for name, value in given.items()}


def hold_plain_values(instance: Any, given: Mapping[str, Any] | None = None) -> None:
    """Check the fields of a frozen dataclass instance, and convert them to plain Python values.

    Args:
        instance: of the dataclass.
        given: the new values by field; by default the values that the fields have.

    Raises:
        UserError: as `parse_fields`.
    """
    if given is None:
        given = {
            field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)
        }
    for name, value in parse_fields(type(instance), given).items():
        object.__setattr__(instance, name, value)


def _parse(field: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    kind, *others = alternatives(hint)
    if value is None and (others or field.default is DERIVED):
        return None
    if kind in PARSERS:
        return PARSERS[kind](field.name, value, **rules_of(field))
    return require_instance(field.name, value, kind)


@functools.cache
def type_hints(cls: type) -> dict[str, Any]:
    """The types of a class's fields, by name."""
    return typing.get_type_hints(cls)


def checked_fields(
    cls: type, fields: Mapping[str, Any], known: Iterable[str] | None = None
) -> dict[str, Any]:
    """`fields` as a dict, checked to have every required field of the dataclass `cls` and no other.

    Args:
        cls: the dataclass.
        fields: values by name.
        known: the fields that may be given; all by default.

    Raises:
        UserError: naming the unknown or the missing fields.
    """
    if not isinstance(fields, Mapping):
        raise UserError(f"the fields of {cls.__name__} must be a dict, not {shown(fields)}")
    every = {field.name: field for field in dataclasses.fields(cls)}
    allowed = list(every if known is None else known)
    for name in fields:
        if name not in allowed:
            raise UserError(f"{cls.__name__} has no field {shown(name)}{near_names(name, allowed)}")
    missing = [name for name in allowed if not has_default(every[name]) and name not in fields]
    if missing:
        raise UserError(f"{cls.__name__} needs a value for {', '.join(missing)}")
    return dict(fields)


def has_default(field: dataclasses.Field[Any]) -> bool:
    """Whether a field has a default, so that it may be left out."""
    nothing = dataclasses.MISSING
    return field.default is not nothing or field.default_factory is not nothing


def short_repr(config: Any) -> str:
    """The ``repr`` of a config: a call that makes it again, without the fields at their defaults."""
    set_fields = (
        f"{field.name}={value!r}"
        for field in dataclasses.fields(config)
        if (value := getattr(config, field.name)) != field.default
    )
    return f"{type(config).__name__}({', '.join(set_fields)})"


def checks_names(cls: type[T]) -> type[T]:
    """A class decorator that makes a dataclass raise a UserError for unknown or missing fields."""
    init: Callable[..., None] = cls.__init__

    @functools.wraps(init)
    def checking_init(self: Any, *values: Any, **fields: Any) -> None:
        if values:
            raise UserError(
                f"{cls.__name__} takes its fields by name only, as in field=value; "
                f"{shown(values[0])} came without a name"
            )
        init(self, **checked_fields(cls, fields))

    cls.__init__ = checking_init  # type: ignore[method-assign, assignment]
    return cls


def translates_names(
    translate: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[[type[T]], type[T]]:
    """A class decorator that passes the fields given to a class through a function first.

    Args:
        translate: from values by the names that a user may give to values by field.
    """

    def decorate(cls: type[T]) -> type[T]:
        init: Callable[..., None] = cls.__init__

        @functools.wraps(init)
        def translating_init(self: Any, *values: Any, **fields: Any) -> None:
            init(self, *values, **translate(fields))

        cls.__init__ = translating_init  # type: ignore[method-assign, assignment]
        return cls

    return decorate
