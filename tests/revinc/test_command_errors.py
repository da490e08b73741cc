from __future__ import annotations

import argparse
import dataclasses
import io
import os
import sys

import pytest

from revinc import ReverseIncrement, UserError
from revinc.command_errors import run_command
from revinc.config_parser import (
    add_run_flags,
    expand_steps,
    make_config_parser,
    parse_config,
    preset_or_run,
)
from revinc.tasks import TASKS, Brackets, Copy, CumulativeSum, ModularAddition
from revinc.trainer import Diverged, Interrupted


@pytest.fixture
def parse(tmp_path):
    """A function from flags to the config that they give, with --out set to ``run``."""

    def parse(*flags):
        parser = make_config_parser("train")
        add_run_flags(parser)
        words = ["--out", str(tmp_path / "run"), *flags]
        return parse_config(parser, words, preset_or_run)[0]

    return parse


def test_without_flags_the_preset_stands(parse, tutorial):
    assert parse() == parse("--preset", "tutorial") == tutorial


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ("--seed 3", {"init_seed": 3, "data_seed": 3, "split_seed": 3}),
        ("--seed 3 --init-seed 5", {"init_seed": 5, "data_seed": 3, "split_seed": 3}),
        ("--data-seed 5 --seed 3", {"init_seed": 3, "data_seed": 5, "split_seed": 3}),
        ("--lr 1e-3 --steps 50 --eval-every 7", {"lr": 1e-3, "steps": 50, "eval_every": 7}),
        ("--batch-size 8 --weight-decay 0", {"batch_size": 8, "weight_decay": 0.0}),
        ("--b1 0.8 --b2 0.9 --adam-eps 1e-6", {"b1": 0.8, "b2": 0.9, "adam_eps": 1e-6}),
        (
            "--optimizer rmsprop --weight-decay 0 --clip-grad-norm 2 --warmup-steps 9",
            {"optimizer": "rmsprop", "weight_decay": 0.0, "clip_grad_norm": 2.0, "warmup_steps": 9},
        ),
        ("--clip-grad-norm none --loss-on all", {"loss_on": "all"}),
        (
            "--lr-schedule linear --label-smoothing 0.1",
            {"lr_schedule": "linear", "label_smoothing": 0.1},
        ),
        ("--split random --train-fraction 0.5", {"split": "random", "train_fraction": 0.5}),
        ("--snapshots 250 10 10", {"snapshots": (10, 250)}),
        ("--snapshots every:2000", {"snapshots": (0, 2000, 4000)}),
        ("--snapshots every:100 --steps 250", {"snapshots": (0, 100, 200), "steps": 250}),
        ("--snapshots 5 every:2000", {"snapshots": (0, 5, 2000, 4000)}),
    ],
)
def test_training_flags_change_their_fields_alone(parse, tutorial, flags, changes):
    assert parse(*flags.split()) == dataclasses.replace(tutorial, **changes)


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ("--normalization-type none", {"normalization_type": None}),
        ("--normalization-type None", {"normalization_type": None}),
        ("--normalization-type LNPre", {"normalization_type": "LNPre"}),
        ("--attn-only", {"attn_only": True}),
        ("--no-attn-only", {"attn_only": False}),
        ("--dtype float64 --act-fn gelu_new --eps 1e-6", {"dtype": "float64", "act_fn": "gelu_new", "eps": 1e-6}),
        ("--n-layers 1 --n-heads 2 --d-mlp 16", {"n_layers": 1, "n_heads": 2, "d_mlp": 16}),
        ("--d-model 16", {"d_model": 16, "initializer_range": 0.2}),
        ("--d-model 16 --initializer-range 0.4", {"d_model": 16, "initializer_range": 0.4}),
        ("--n-ctx 12 --d-vocab 9", {"n_ctx": 12, "d_vocab": 9, "d_vocab_out": 9}),
    ],
)  # fmt: skip
def test_model_flags_change_their_fields_and_what_derives_from_them(
    parse, tutorial, flags, changes
):
    changed = dataclasses.replace(tutorial.model, **changes)
    assert parse(*flags.split()) == dataclasses.replace(tutorial, model=changed)


@pytest.mark.parametrize(
    ("flags", "task", "d_vocab", "n_ctx"),
    [
        ("--length 5", {"length": 5}, 5, 11),
        ("--length 2 --n-symbols 8 --batch-size 4", {"length": 2, "n_symbols": 8}, 9, 5),
        ("--shift -1 --no-reverse", {"shift": -1, "reverse": False}, 5, 9),
        ("--task reverse_increment --length 4", {}, 5, 9),
        ("--length 5 --n-ctx 20 --d-vocab 7", {"length": 5}, 7, 20),
    ],
)
def test_the_model_follows_the_task(parse, flags, task, d_vocab, n_ctx):
    cfg = parse(*flags.split())
    assert cfg.task == ReverseIncrement(**task)
    assert (cfg.model.d_vocab, cfg.model.d_vocab_out, cfg.model.n_ctx) == (d_vocab, d_vocab, n_ctx)


@pytest.mark.parametrize(
    ("flags", "task", "d_vocab", "n_ctx"),
    [
        ("--task copy", Copy(), 9, 9),
        ("--length 3 --batch-size 8 --task=copy", Copy(length=3), 9, 7),
        ("--task copy --length 12 --n-symbols 5", Copy(length=12, n_symbols=5), 6, 25),
        ("--task cumulative_sum --modulus 7 --length 4", CumulativeSum(length=4, modulus=7), 8, 9),
        ("--task brackets --pairs 3", Brackets(pairs=3), 5, 8),
        ("--preset grokking --modulus 11 --batch-size 30", ModularAddition(modulus=11), 12, 4),
    ],
)
def test_a_task_has_its_own_fields_as_flags(parse, flags, task, d_vocab, n_ctx):
    cfg = parse(*flags.split())
    assert cfg.task == task
    assert (cfg.model.d_vocab, cfg.model.n_ctx) == (d_vocab, n_ctx)


@pytest.mark.parametrize(
    ("flags", "task", "field"),
    [
        ("--task copy --shift 2", "copy", "shift"),
        ("--modulus 5", "reverse_increment", "modulus"),
        ("--preset grokking --length=3", "modular_addition", "length"),
        ("--task brackets --no-reverse", "brackets", "reverse"),
    ],
)
def test_a_field_of_another_task_is_named(parse, refuses_in_one_line, flags, task, field):
    with refuses_in_one_line(UserError, task, f"no field {field!r}"):
        parse(*flags.split())


def test_a_flag_that_no_task_has_is_argparses_to_refuse(parse, capsys):
    with pytest.raises(SystemExit):
        parse("--task", "copy", "--colour", "red")
    assert "unrecognized arguments: --colour red" in capsys.readouterr().err


def test_help_is_of_the_task_that_is_meant_and_lists_all(parse, capsys):
    with pytest.raises(SystemExit):
        parse("--help", "--task", "brackets")
    text = capsys.readouterr().out
    assert "--pairs" in text
    assert "--shift" not in text
    for name in TASKS:
        assert f"\n  {name} " in text


@pytest.mark.parametrize(
    ("kind", "default", "phrase"),
    [(int, 3, "name of another flag"), (tuple, (), "int, float, str")],
)
def test_fields_that_make_no_flag_are_refused(
    parse, monkeypatch, refuses_in_one_line, kind, default, phrase
):
    name = "seed" if kind is int else "places"
    odd = dataclasses.make_dataclass("Odd", [(name, kind, default)], bases=(Copy,), frozen=True)
    monkeypatch.setitem(TASKS, "odd", odd)
    with refuses_in_one_line(UserError, phrase):
        parse("--task", "odd")


def test_resume_takes_everything_from_the_run(parse, train, cfg):
    train("run")
    assert parse("--resume") == cfg
    assert parse("--resume", "--lr", "0.5") == dataclasses.replace(cfg, lr=0.5)
    assert parse("--resume", "--snapshots", "every:30").snapshots == (0, 30, 60)


def test_resume_of_nothing_takes_the_preset(parse, tutorial):
    assert parse("--resume", "--steps", "50") == dataclasses.replace(tutorial, steps=50)


@pytest.mark.parametrize(
    "word",
    ["", "x", "every:", "every:0", "every:-1", "each:10", "1.5", "-1", "²", "every:³", "1:2"],
)
def test_a_word_that_is_no_step_is_refused_by_what_it_is(word):
    with pytest.raises(UserError, match=r"^snapshots: .*every:100") as caught:
        expand_steps([word], 1000)
    assert repr(word) in str(caught.value)


def test_more_steps_than_can_be_kept_are_refused_before_they_are_listed():
    with pytest.raises(UserError, match="every:1 in 1,000,000,000 steps makes 1,000,000,001"):
        expand_steps(["every:1"], 10**9)
    assert expand_steps(["every:500000000"], 10**9) == (0, 500000000, 1000000000)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (lambda args: None, 0),
        (lambda args: 3, 3),
        (UserError("a sentence"), 2),
        (OSError("a sentence"), 2),
        (Diverged("a sentence"), 1),
        (Interrupted("a sentence"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_status(capsys, outcome, status):
    def command(args):
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome(args)

    parser = argparse.ArgumentParser(prog="program")
    parser.set_defaults(command=command)
    assert run_command(parser, []) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    if isinstance(outcome, KeyboardInterrupt) and not isinstance(outcome, Interrupted):
        assert printed.err == "program: interrupted\n"
    elif isinstance(outcome, BaseException):
        assert printed.err == "program: a sentence\n"
    else:
        assert printed.err == ""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 745. GiB for an array"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8192000000 bytes."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_runs_out_is_one_line(capsys, error):
    def command(args):
        raise error

    parser = argparse.ArgumentParser(prog="program")
    parser.set_defaults(command=command)
    assert run_command(parser, []) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("program: out of memory: choose smaller sizes")


def test_other_runtime_errors_are_not_hidden():
    def command(args):
        raise RuntimeError("a bug")

    parser = argparse.ArgumentParser()
    parser.set_defaults(command=command)
    with pytest.raises(RuntimeError, match="a bug"):
        run_command(parser, [])


def test_errors_that_are_ours_are_not_hidden():
    def command(args):
        raise TypeError("a bug")

    parser = argparse.ArgumentParser()
    parser.set_defaults(command=command)
    with pytest.raises(TypeError, match="a bug"):
        run_command(parser, [])


def test_every_field_has_a_flag_with_a_help_text(parse, capsys, tutorial):
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for section in tutorial.to_dict().values():
        for field in section.keys() - {"name"}:
            assert f"--{field.replace('_', '-')}" in text


def test_a_full_disk_is_a_sentence_that_names_the_file(capsys):
    assert run_raising(OSError(28, "No space left on device", "runs/a/weights.safetensors")) == 2
    said = capsys.readouterr().err
    assert said == "prog: No space left on device: runs/a/weights.safetensors\n"


def test_a_path_that_is_not_utf_8_is_printed_all_the_same(monkeypatch):
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "utf-8", write_through=True))
    parser = argparse.ArgumentParser("prog")
    parser.set_defaults(command=lambda _: print(os.fsdecode(b"n\xffx")))
    assert run_command(parser, []) == 0
    assert printed.getvalue() == b"n\\udcffx\n"


def run_raising(error):
    parser = argparse.ArgumentParser("prog")

    def fails(_):
        raise error

    parser.set_defaults(command=fails)
    return run_command(parser, [])
