"""`evaluate`: fed the right tokens it counts as training does; fed its own, as a loop by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jax_revinc import PRESETS, HookedTransformer, UserError, evaluate, evaluation
from jax_revinc.objective import predictions, token_losses
from revinc.tasks import Brackets, Induction, ModularAddition, ReverseIncrement, eval_positions


def fed_its_own(model, sequences, positions):
    """The sequences with the predicted tokens replaced, from shorter inputs, one call a token."""
    fed = sequences.copy()
    for position in positions:
        fed[:, position] = np.asarray(model(fed[:, :position]))[:, -1].argmax(-1)
    return fed


@pytest.fixture(scope="module")
def half_trained(short_run):
    return short_run.model()


def test_fed_the_right_tokens_it_is_the_evaluation_of_training(short_run, half_trained):
    task = short_run.config.task
    found = evaluate(half_trained, task)
    logits, targets = predictions(
        half_trained.cfg, half_trained.params, task.sequences(), eval_positions(task)
    )
    right = np.asarray(logits.argmax(-1) == targets)
    assert found.accuracy == right.mean()
    assert found.sequence_accuracy == right.all(1).mean()
    np.testing.assert_allclose(found.loss, token_losses(logits, targets).mean(), rtol=1e-6)


def test_fed_its_own_predictions_it_is_a_loop_by_hand(short_run, half_trained):
    task = short_run.config.task
    sequences, positions = task.sequences(), list(eval_positions(task))
    found = evaluate(half_trained, task, free_running=True)
    fed = fed_its_own(half_trained, sequences, positions)
    right = (fed == sequences)[:, positions]
    assert 0.25 < right.mean() < 1  # else nothing would be tested
    assert found.accuracy == right.mean()
    assert found.sequence_accuracy == right.all(1).mean()
    assert found != evaluate(half_trained, task)


def test_the_last_batch_may_be_smaller(short_run, half_trained, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH", 100)
    task = short_run.config.task
    some = evaluate(half_trained, task, task.sequences()[:250], free_running=True)
    monkeypatch.setattr(evaluation, "BATCH", 250)
    assert evaluate(half_trained, task, task.sequences()[:250], free_running=True) == some


@pytest.mark.parametrize(
    "task", [Induction(), Brackets(), ModularAddition(), ReverseIncrement(length=2)]
)
def test_other_tasks_are_evaluated(task):
    seq = task.sequences().shape[1]
    cfg = PRESETS["tutorial"].model.replace(
        d_vocab=len(task.vocabulary), d_vocab_out=len(task.vocabulary), n_ctx=seq, seed=1
    )
    model = HookedTransformer(cfg)
    assert evaluate(model, task).accuracy <= 1
    own = evaluate(model, task, free_running=True)
    if len(eval_positions(task)) == 1:
        assert own == evaluate(model, task)


@pytest.mark.parametrize(
    ("changes", "sequences", "message"),
    [
        ({"attention_dir": "bidirectional"}, None, "can't run freely"),
        ({"n_ctx": 7}, None, "longer than n_ctx=7"),
        ({"d_vocab": 4, "d_vocab_out": 4}, None, "0..3 (d_vocab=4)"),
        ({"d_vocab_out": 3}, None, "0..2 (d_vocab_out=3)"),
        ({}, [[4, 0, 1, 2]], "have 9 tokens, not 4"),
    ],
)
def test_what_does_not_fit_is_refused(short_run, changes, sequences, message):
    cfg = short_run.config.model.replace(**changes, seed=0)
    with pytest.raises(UserError) as error:
        evaluate(HookedTransformer(cfg), short_run.config.task, sequences, free_running=True)
    assert message in str(error.value)
