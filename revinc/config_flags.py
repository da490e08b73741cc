"""Conversion of a training config to command-line flags: the inverse of `revinc.config_parser`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from revinc.config import TrainConfig, train_fields
from revinc.config_parser import DEFAULT_PRESET, fitting_sizes
from revinc.model_config import HookedTransformerConfig
from revinc.presets import PRESETS


def changed_fields(cfg: TrainConfig, without: Collection[str] = ()) -> dict[str, Any]:
    """The smallest dict of field values that turns the default preset into `cfg`.

    Args:
        cfg: the config. Its snapshots are left out.
        without: fields of `TrainConfig` that are left out too.
    """
    preset = PRESETS[DEFAULT_PRESET]
    changed = {} if type(cfg.task) is type(preset.task) else {"task": cfg.task.name}
    usual = type(cfg.task) if changed else preset.task
    fields = {name: v for name, v in cfg.to_dict()["task"].items() if name != "name"}
    changed |= {name: v for name, v in fields.items() if v != getattr(usual, name, None)}
    model = preset.model.replace(**fitting_sizes(cfg.task)) if changed else preset.model
    changed |= {
        field.name: getattr(cfg, field.name)
        for field in train_fields()
        if field.name not in (*without, "snapshots")
        and getattr(cfg, field.name) != getattr(preset, field.name)
    }
    return changed | _changed_model_fields(cfg.model, model)


def as_flags(values: Mapping[str, Any]) -> Iterator[str]:
    """Convert field values such as ``{"lr": 0.01}`` to command-line words such as ``--lr 0.01``."""
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield from (f"--{flag}", "none" if value is None else str(value))


def _changed_model_fields(
    cfg: HookedTransformerConfig, usual: HookedTransformerConfig
) -> dict[str, Any]:
    """The smallest dict of model config fields that turns `usual` into `cfg`.

    Fields whose values are derived from other fields are left out where possible.
    """
    changes = {k: v for k, v in cfg.to_dict().items() if v != getattr(usual, k)}
    for name in list(changes):
        fewer = {k: v for k, v in changes.items() if k != name}
        if usual.replace(**fewer) == cfg:
            changes = fewer
    return changes
