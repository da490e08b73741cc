from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jax_revinc import numerics
from jax_revinc.objective import mean_loss, predictions, token_losses
from revinc.objective import Objective, make_objective

OBJECTIVE = Objective((5, 6, 7, 8))


def test_the_loss_is_the_mean_cross_entropy_of_the_output_tokens(tutorial, model64, random_weights):
    sequences = tutorial.task.sequences()
    logits = np.asarray(model64(sequences[:, :-1]))
    losses = [
        np.log(np.exp(row[position - 1]).sum()) - row[position - 1][tokens[position]]
        for row, tokens in zip(logits, sequences, strict=True)
        for position in (5, 6, 7, 8)
    ]
    with numerics(model64.cfg):
        loss = mean_loss(model64.cfg, model64.params, jax.numpy.asarray(sequences), OBJECTIVE)
    assert loss.dtype == np.float64
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-13)


def test_the_last_token_is_predicted_and_never_seen(tutorial, model64):
    sequences = tutorial.task.sequences()[:8]
    changed = sequences.copy()
    changed[:, -1] = (changed[:, -1] + 1) % 4
    logits, targets = predictions(model64.cfg, model64.params, sequences, (5, 6, 7, 8))
    other_logits, other_targets = predictions(model64.cfg, model64.params, changed, (5, 6, 7, 8))
    assert np.array_equal(logits, other_logits)
    assert np.asarray(targets).tolist() == sequences[:, 5:].tolist()
    assert not np.array_equal(targets, other_targets)


def test_uniform_logits_cost_the_log_of_the_vocabulary():
    losses = token_losses(np.zeros((2, 3, 5), np.float32), np.zeros((2, 3), np.int32))
    assert losses.shape == (2, 3)
    assert np.allclose(losses, np.log(5))


def test_huge_logits_give_finite_losses():
    logits = np.array([[[1e4, 0.0, -1e4]]], np.float32)
    assert float(token_losses(logits, np.array([[0]]))[0, 0]) == 0
    assert float(token_losses(logits, np.array([[1]]))[0, 0]) == 1e4


def test_smoothed_losses_are_those_against_smoothed_labels():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(2, 3, 5)), rng.integers(0, 5, (2, 3))
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    labels = 0.9 * np.eye(5)[targets] + 0.1 / 5
    with jax.enable_x64():
        losses = token_losses(jax.numpy.asarray(logits), targets, 0.1)
    np.testing.assert_allclose(losses, -(labels * log_probs).sum(-1), rtol=1e-13)


def test_smoothing_is_torchs():
    torch = pytest.importorskip("torch")
    from torch_reference.objective import token_losses as torch_losses

    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(2, 3, 5)), rng.integers(0, 5, (2, 3))
    for smoothing in (0.0, 0.3):
        with jax.enable_x64():
            ours = token_losses(jax.numpy.asarray(logits), targets, smoothing)
        theirs = torch_losses(torch.tensor(logits), torch.tensor(targets), smoothing)
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-13)


def test_without_smoothing_the_program_is_the_one_that_knows_of_none(tutorial):
    def lowered(*smoothing):
        logits = jax.ShapeDtypeStruct((2, 3, 5), np.float32)
        targets = jax.ShapeDtypeStruct((2, 3), np.int32)
        return jax.jit(lambda x, y: token_losses(x, y, *smoothing)).lower(logits, targets).as_text()

    assert lowered(0.0) == lowered()
    assert lowered(0.1) != lowered()


def test_the_loss_on_all_tokens_is_the_models_own(tutorial, model64):
    cfg = dataclasses.replace(
        tutorial, model=model64.cfg.replace(n_ctx=10), loss_on="all", batch_size=8
    )
    objective = make_objective(cfg)
    assert objective.train_positions == tuple(range(1, 9))
    sequences = tutorial.task.sequences()
    with numerics(model64.cfg):
        ours = mean_loss(model64.cfg, model64.params, jax.numpy.asarray(sequences), objective)
        theirs = model64(sequences, return_type="loss")
    assert float(ours) == pytest.approx(float(theirs), rel=1e-13)
