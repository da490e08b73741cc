"""A training config in a few lines: what differs from the nearest preset, and the model's size."""

from __future__ import annotations

from typing import Any

from revinc.config import TrainConfig
from revinc.model_config import HookedTransformerConfig
from revinc.presets import PRESETS
from revinc.weights import parameter_count

MOST_LISTED = 8
"""Values of a field that are listed one by one."""

Summary = dict[str, str]
"""Texts by title."""


def short_summary(cfg: TrainConfig) -> Summary:
    """What a config changes in the preset that is nearest to it, and the size of its model."""
    changes = {name: changed_fields(cfg, preset) for name, preset in PRESETS.items()}
    name = min(changes, key=lambda name: len(changes[name]))
    described = f"preset {name}"
    if changes[name]:
        described += f", with {in_words(changes[name])}"
    size = f"{model_size(cfg.model)}: {parameter_count(cfg.model):,} parameters"
    return {"config": described, "model": size}


def full_summary(cfg: TrainConfig) -> Summary:
    """Every field of a config, by section."""
    return {section: in_words(fields) for section, fields in cfg.to_dict().items()}


def changed_fields(cfg: TrainConfig, preset: TrainConfig) -> dict[str, Any]:
    """The fields of a config, of any section, whose values are not those of a preset."""
    here, there = cfg.to_dict(), preset.to_dict()
    return {
        name: value
        for section in here
        for name, value in here[section].items()
        if there[section].get(name) != value
    }


def in_words(fields: dict[str, Any]) -> str:
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
