"""What hangs on each part of a model, on models set by hand, where it can be known."""

import numpy as np
import pytest

from jax_revinc import ReverseIncrement, UserError
from jax_revinc.analysis.effects import (
    ablation_costs,
    edges,
    margin,
    mean_margin,
    pairs,
    recovery,
)

TASK = ReverseIncrement()
WRITERS = ["embed", "pos_embed", "L0H0", "0_mlp_out"]


@pytest.fixture(scope="module")
def ov(hand_built):
    """Attention increments; without norms, the logits are a sum of what is written."""
    return hand_built("ov")


@pytest.fixture(scope="module")
def lost(ov):
    return edges(ov, TASK)


def test_in_a_pair_every_token_that_decides_an_answer_differs():
    clean, corrupted = pairs(TASK)
    assert clean.shape == corrupted.shape == (256, 8)
    assert (clean[:, 1:5] != corrupted[:, 1:5]).all()
    assert (clean[:, 0] == corrupted[:, 0]).all()


def test_what_is_written_to_the_logits_adds_up_to_all(lost):
    assert lost.loc[WRITERS, "logits"].sum() == pytest.approx(1, abs=1e-4)
    assert lost.loc["L0H0", "logits"] > 0.9
    np.testing.assert_allclose(lost.loc["pos_embed"].dropna(), 0, atol=1e-6)


def test_there_are_paths_onwards_only(lost):
    assert lost.loc[["L0H0", "0_mlp_out"], "L0H0 v"].isna().all()
    assert lost.loc["L0H0", ["0_mlp_in", "logits"]].notna().all()
    assert np.isnan(lost.loc["0_mlp_out", "0_mlp_in"])


def test_a_heads_positions_together_bring_back_what_its_path_loses(ov, lost):
    returned = recovery(ov, TASK)
    assert returned["z"].shape == (1, 8, 1)
    assert returned["z"].sum() == pytest.approx(lost.loc["L0H0", "logits"], abs=1e-3)
    predicting = returned["z"][0, 4:, 0]
    assert predicting.sum() == pytest.approx(returned["z"].sum(), abs=1e-3)
    np.testing.assert_allclose(predicting, predicting.mean(), atol=0.02)


def test_nothing_and_everything_are_0_and_1(ov):
    clean, corrupted = pairs(TASK)
    margins = [float(mean_margin(TASK)(ov(tokens))) for tokens in (corrupted, clean)]
    assert margins[1] > 1 > margins[0]


def test_the_margin_is_over_the_mean_of_the_other_tokens():
    logits = np.random.default_rng(0).normal(size=(256, 8, 5)).astype(np.float32)
    expected = []
    for sequence, of_one in zip(TASK.sequences(), logits, strict=True):
        over = [
            of_one[at - 1, sequence[at]] - np.delete(of_one[at - 1], sequence[at]).mean()
            for at in (5, 6, 7, 8)
        ]
        expected.append(np.mean(over))
    np.testing.assert_allclose(margin(TASK)(logits), expected, atol=1e-5)


def test_without_its_head_the_model_guesses(ov):
    costs = ablation_costs(ov, TASK).sort_index()["accuracy_change"]
    for method in ("mean", "resample"):
        assert costs[method, "head", "blocks.0.attn.hook_z"].item() < -0.5
        assert costs[method, "MLP", "blocks.0.hook_mlp_out"].item() == 0


def test_a_task_whose_answers_hang_on_no_single_token_is_refused(ov):
    class Other(ReverseIncrement):
        sources = ()

    with pytest.raises(UserError, match="token"):
        recovery(ov, Other())
