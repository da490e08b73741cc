"""Both engines make the same steps from the same weights on the same batches."""

from dataclasses import replace

import numpy as np
import pytest

from jax_revinc.engines import make_engine
from jax_revinc.training import draw_weights
from revinc import TrainConfig
from revinc.batch_schedule import draw_batches
from revinc.dataset import make_dataset
from revinc.tasks import Copy
from torch_reference import TorchEngine
from torch_reference.installed_transformer_lens import WORLD

pytestmark = pytest.mark.skipif(WORLD != "3.9", reason="4.x does not train the unembedding's bias")

CFG = TrainConfig(steps=100, model=TrainConfig().model.replace(dtype="float64"))


@pytest.fixture(scope="module")
def trained():
    """Each engine's losses and weights after 100 steps in float64, from the same beginning."""
    batches = draw_batches(0, make_dataset(CFG).train_rows, CFG.batch_size, 0, CFG.steps)
    results = []
    for engine in (make_engine(CFG), TorchEngine(CFG, "cpu")):
        state, losses = engine.advance(engine.start(draw_weights(CFG)), batches)
        results.append((losses, engine.weights(state), engine.evaluate(state)))
    return results


def test_losses_agree_for_a_hundred_steps(trained):
    (ours, _, _), (theirs, _, _) = trained
    assert theirs[0] - theirs[-1] > 0.3, "it learned something"
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)


def test_weights_agree_after_a_hundred_steps(trained):
    (_, ours, _), (_, theirs, _) = trained
    for name, weight in theirs.items():
        # The gradient of b_K is rounding noise (softmax is blind to it), which Adam magnifies.
        bound = 1e-8 if name.endswith("b_K") else 1e-11
        np.testing.assert_allclose(ours[name], weight, rtol=0, atol=bound, err_msg=name)


def test_evaluations_agree(trained):
    (_, _, ours), (_, _, theirs) = trained
    assert ours.keys() == theirs.keys()
    for metric, value in theirs.items():
        assert ours[metric] == pytest.approx(value, abs=1e-10)


def test_the_comparison_would_see_another_learning_rate(trained):
    batches = draw_batches(0, make_dataset(CFG).train_rows, CFG.batch_size, 0, CFG.steps)
    engine = make_engine(TrainConfig(steps=100, model=CFG.model, lr=1.0001e-2))
    _, losses = engine.advance(engine.start(draw_weights(CFG)), batches)
    assert np.abs(losses - trained[1][0]).max() > 1e-7


def test_both_see_the_same_batches_of_a_task_that_is_drawn():
    model = CFG.model.replace(n_layers=1, n_ctx=16, d_vocab=9)
    cfg = replace(CFG, task=Copy(length=8), model=model, eval_every=20, data_seed=5)
    ours, theirs = make_engine(cfg), TorchEngine(cfg, "cpu")
    data, weights = make_dataset(cfg), draw_weights(cfg)
    our_state, their_state = ours.start(weights), theirs.start(weights)
    for start in (0, 20):
        batches = data.rows(start, start + 20)
        our_state, our_losses = ours.advance(our_state, batches)
        their_state, their_losses = theirs.advance(their_state, batches)
        np.testing.assert_allclose(our_losses, their_losses, rtol=0, atol=1e-11)
    assert ours.evaluate(our_state) == pytest.approx(theirs.evaluate(their_state), abs=1e-11)
    _, others = theirs.advance(their_state, data.rows(40, 60))
    assert np.abs(ours.advance(our_state, data.rows(41, 61))[1] - others).min() > 1e-4
