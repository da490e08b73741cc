"""A config is told by what it changes in the nearest preset; every field only if one asks for it."""

from __future__ import annotations

import dataclasses

import pytest

from revinc import PRESETS
from revinc.config_summary import MOST_LISTED, full_summary, nearest_preset, short_summary


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_told_by_its_name(name):
    assert short_summary(PRESETS[name])["config"] == f"preset {name}"


def test_only_what_is_changed_in_the_nearest_preset_is_told():
    cfg = dataclasses.replace(PRESETS["reliable"].with_seed(3), lr=0.5)
    assert short_summary(cfg)["config"] == (
        "preset reliable, with lr=0.5, init_seed=3, data_seed=3, split_seed=3"
    )
    model = PRESETS["tutorial"].model.replace(n_layers=1, attn_only=True)
    summary = short_summary(dataclasses.replace(PRESETS["tutorial"], model=model))
    assert summary["config"] == "preset tutorial, with n_layers=1, attn_only=True"
    assert summary["model"].startswith("1 layer, 1 head each, d_model 4, no MLPs: ")


def test_a_long_list_is_told_by_its_length():
    steps = tuple(range(MOST_LISTED + 1))
    cfg = dataclasses.replace(PRESETS["tutorial"], snapshots=steps)
    assert short_summary(cfg)["config"].endswith(f"snapshots={MOST_LISTED + 1} values")


def test_the_full_summary_has_every_field():
    cfg = PRESETS["tutorial"]
    summary = full_summary(cfg)
    for section, fields in cfg.to_dict().items():
        for name, value in fields.items():
            assert f"{name}={value}" in summary[section]


def test_some_sections_are_compared_with_the_nearest_preset():
    cfg = PRESETS["grokking"]
    sections = {"model": cfg.model.replace(n_layers=2).to_dict()}
    assert nearest_preset(sections) == ("grokking", {"model": {"n_layers": 2}})
