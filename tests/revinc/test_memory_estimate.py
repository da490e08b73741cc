from __future__ import annotations

import dataclasses

import pytest

from revinc import PRESETS, UserError, memory_estimate
from revinc.memory_estimate import (
    available_memory,
    in_gigabytes,
    require_memory,
    require_room_to_look_into,
    require_room_to_train,
)


def wide(cfg, **sizes):
    return dataclasses.replace(cfg, model=cfg.model.replace(**sizes))


def test_this_machine_has_memory_and_a_limit_of_the_process_counts(monkeypatch):
    resource = pytest.importorskip("resource")
    there = available_memory()
    assert there is None or there > 2**20
    monkeypatch.setattr(resource, "getrlimit", lambda which: (12345, 99999))
    assert available_memory() == 12345


def test_a_limit_of_the_control_group_counts_and_the_word_max_does_not(tmp_path):
    file = tmp_path / "memory.max"
    assert list(memory_estimate._numbers_in(file)) == []
    file.write_text("max\n")
    assert list(memory_estimate._numbers_in(file)) == []
    file.write_text("4096\n")
    assert list(memory_estimate._numbers_in(file)) == [4096]


def test_the_sentence_says_the_estimate_and_what_to_lower(refuses_in_one_line):
    with refuses_in_one_line(
        UserError, "training needs at least 2.5 GB of memory, and only 1.0 GB is", "smaller width"
    ):
        require_memory("training", 25 * 10**8, "width", available=10**9)
    require_memory("training", 10**9, "width", available=10**9)


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_fit_into_little(name):
    cfg = PRESETS[name]
    require_room_to_train(cfg, activations=True, available=10**9)
    require_room_to_train(PRESETS["tutorial"], 4096, activations=True, available=10**9)


@pytest.mark.parametrize(
    ("changes", "sizes", "n_models", "lower"),
    [
        ({}, {"d_mlp": 10**9}, 1, "d_mlp"),
        ({}, {"d_vocab": 2 * 10**9}, 1, "d_vocab"),
        ({"steps": 10**9, "eval_every": 10**6}, {}, 1, "number of steps"),
        ({}, {"d_model": 10**6, "d_head": 2, "n_heads": 1}, 1, "batch_size, d_model"),
        ({}, {}, 10**9, "width"),
    ],
)
def test_what_takes_most_is_named(tutorial, refuses_in_one_line, changes, sizes, n_models, lower):
    cfg = dataclasses.replace(wide(tutorial, **sizes), **changes)
    with refuses_in_one_line(UserError, "needs at least", lower):
        require_room_to_train(cfg, n_models, activations=True, available=10**9)


def test_an_estimate_is_no_more_than_the_weights_and_moments_need(tutorial):
    cfg = wide(tutorial, d_model=1000, d_head=2, n_heads=1)
    n = memory_estimate.parameter_count(cfg.model)
    assert memory_estimate.bytes_of_model(cfg) - 4 * 16 * 100 == 3 * 4 * n
    bare = dataclasses.replace(cfg, optimizer="sgd", weight_decay=0.0)
    assert memory_estimate.bytes_of_model(bare) - 4 * 16 * 100 == 4 * n


def test_looking_into_a_model_is_refused_where_all_sequences_do_not_fit(tutorial, monkeypatch):
    monkeypatch.setattr(memory_estimate, "available_memory", lambda: 10**9)
    require_room_to_look_into(tutorial)
    with pytest.raises(
        UserError, match=r"activations on all 256 sequences needs at least 4.\.. GB"
    ):
        require_room_to_look_into(wide(tutorial, d_model=10**6, d_head=2, n_heads=1))


def test_where_the_system_does_not_say_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(memory_estimate, "available_memory", lambda: None)
    require_memory("training", 10**100, "width")


def test_gigabytes_of_any_size_are_written():
    assert in_gigabytes(1_549_999_999) == "1.5 GB"
    assert len(in_gigabytes(10**400)) > 400
