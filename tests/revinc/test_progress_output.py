"""What is said at the beginning and the end of a run."""

from __future__ import annotations

import dataclasses
import types

import pandas as pd
import pytest

from revinc import PRESETS
from revinc.progress_output import Reporter

TUTORIAL = PRESETS["tutorial"]
ENGINE = types.SimpleNamespace(device="a device", identity={"name": "xla"})


def said_of(holdout, cfg, capsys, keep=None):
    """What is said of a run with these holdout accuracies, 100 steps apart."""
    metrics = pd.DataFrame(
        {
            "step": range(0, 100 * len(holdout), 100),
            "train_accuracy": holdout,
            "holdout_accuracy": holdout,
            "holdout_loss": 1.0,
        }
    )
    run = types.SimpleNamespace(config=cfg, metrics=metrics, keep=keep, path="runs/a")
    Reporter().finished(run)
    return capsys.readouterr().out.splitlines()


def test_a_solved_task_is_said_in_a_line(capsys):
    assert said_of([0.2, 1.0], TUTORIAL, capsys)[1:] == ["Solved: 100% of the holdout is right."]


def test_a_run_that_lost_what_it_had_learned_says_when_it_was_better(capsys):
    lines = said_of([0.2, 0.99, 0.4], TUTORIAL, capsys)[1:]
    assert lines[0] == "Not solved: 40.00% of the holdout is right, 100% is needed."
    assert lines[1].startswith("It was better before: 99.00% at step 100.")
    assert len(said_of([0.2, 0.4, 0.99], TUTORIAL, capsys)[1:]) == 1


def test_a_run_that_had_solved_the_task_says_so(capsys):
    line = said_of([0.2, 1.0, 1.0, 0.4], TUTORIAL, capsys)[2]
    assert line.startswith("It had solved the task before: 100% at step 100.")


def test_a_run_that_kept_its_best_weights_says_how_to_look_at_them(capsys):
    assert said_of([0.2, 0.99, 0.4], TUTORIAL, capsys, keep="best")[2:] == [
        "It was better before: 99.00% at step 100. Its weights are kept: "
        "jax-revinc inspect runs/a --step best"
    ]
    assert len(said_of([0.2, 0.4, 0.99], TUTORIAL, capsys, keep="best")[1:]) == 1


@pytest.mark.parametrize("verbose", [False, True])
def test_every_field_and_parameter_is_printed_only_if_one_asks_for_it(capsys, verbose):
    cfg = dataclasses.replace(TUTORIAL, lr=0.5)
    Reporter(verbose=verbose).header(cfg, ENGINE)
    printed = capsys.readouterr().out
    assert "a device (engine xla)" in printed
    assert "lr=0.5" in printed
    assert ("adam_eps=1e-08" in printed) == verbose
    assert ("blocks.0.attn.W_Q" in printed) == verbose
    assert ("preset tutorial, with lr=0.5" in printed) != verbose
    assert "285" in printed
