"""A training config in a few lines: what differs from the nearest preset, and the model's size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from revinc.config import TrainConfig
from revinc.model_config import HookedTransformerConfig
from revinc.presets import PRESETS
from revinc.weights import parameter_count

MOST_LISTED = 8
"""Values of a field that are listed one by one."""

Summary = dict[str, str]
"""Texts by title."""

Sections = Mapping[str, Mapping[str, Any]]
"""Fields of a config, by section."""


class Nearest(NamedTuple):
    """The preset that is nearest to a config, and what the config changes in it.

    Attributes:
        preset: its name.
        changes: the fields with other values, by section; no section is empty.
    """

    preset: str
    changes: Sections


def short_summary(cfg: TrainConfig) -> Summary:
    """What a config changes in the preset that is nearest to it, and the size of its model."""
    name, changes = nearest_preset(cfg.to_dict())
    fields = {name: value for section in changes.values() for name, value in section.items()}
    described = f"preset {name}"
    if fields:
        described += f", with {in_words(fields)}"
    size = f"{model_size(cfg.model)}: {parameter_count(cfg.model):,} parameters"
    return {"config": described, "model": size}


def full_summary(cfg: TrainConfig) -> Summary:
    """Every field of a config, by section."""
    return {section: in_words(fields) for section, fields in cfg.to_dict().items()}


def nearest_preset(sections: Sections) -> Nearest:
    """The preset in which a config changes the fewest fields, with these changes.

    Args:
        sections: the config as `TrainConfig.to_dict` makes it, or only some sections of it.
    """
    changes = {name: changed_fields(sections, preset) for name, preset in PRESETS.items()}
    name = min(changes, key=lambda name: sum(map(len, changes[name].values())))
    return Nearest(name, changes[name])


def changed_fields(sections: Sections, preset: TrainConfig) -> Sections:
    """The fields of a config, by section, whose values are not those of a preset."""
    there = preset.to_dict()
    changed = {
        section: {
            name: value for name, value in fields.items() if there[section].get(name) != value
        }
        for section, fields in sections.items()
    }
    return {section: fields for section, fields in changed.items() if fields}


def in_words(fields: Mapping[str, Any]) -> str:
    """Fields as text, such as ``lr=0.01, steps=300``; of a long list only the number of values."""

    def text(value: Any) -> str:
        is_long = isinstance(value, list | tuple) and len(value) > MOST_LISTED
        return f"{len(value)} values" if is_long else str(value)

    return ", ".join(f"{name}={text(value)}" for name, value in fields.items())


def model_size(cfg: HookedTransformerConfig) -> str:
    """A line with the sizes of a model: layers, heads, d_model, d_mlp."""
    mlp = "no MLPs" if cfg.attn_only else f"d_mlp {cfg.d_mlp}"
    heads = f"{count(cfg.n_heads, 'head')} each"
    return f"{count(cfg.n_layers, 'layer')}, {heads}, d_model {cfg.d_model}, {mlp}"


def count(number: int, noun: str) -> str:
    """A number and its noun, such as "1 head" or "2 heads"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
