"""Patterns are counted as their definitions say, on patterns made by hand and on models."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_revinc import HookedTransformer, HookedTransformerConfig, UserError
from jax_revinc.analysis import attention
from jax_revinc.analysis.attention import (
    attention_patterns,
    attention_summary,
    reversal_score,
    row_entropy,
    summarize_patterns,
)
from revinc import ReverseIncrement
from revinc.tasks import reading_cells

HAND_MADE = np.array(
    [
        [[[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.2, 0.6]]],
        [[[1, 0, 0], [0.25, 0.75, 0], [0.1, 0.9, 0]]],
        [[[1, 0, 0], [0.0, 1.0, 0], [0.7, 0.1, 0.2]]],
    ]
)
"""Three inputs, one head, three positions."""


@pytest.fixture(scope="module")
def two_heads(random_weights):
    cfg = HookedTransformerConfig(
        n_layers=2, n_heads=2, d_model=4, d_head=2, d_vocab=5, n_ctx=9, dtype="float64"
    )
    return HookedTransformer(cfg, params=random_weights(cfg))


def test_a_summary_of_patterns_made_by_hand():
    summary = summarize_patterns(HAND_MADE)
    np.testing.assert_allclose(
        summary.mean[0], [[1, 0, 0], [0.25, 0.75, 0], [1 / 3, 0.4, 0.8 / 3]], atol=1e-15
    )
    np.testing.assert_allclose(summary.spread[0, 1], [np.sqrt(0.125 / 3)] * 2 + [0], atol=1e-15)
    halves, quarters = np.log(2), -0.25 * np.log(0.25) - 0.75 * np.log(0.75)
    np.testing.assert_allclose(summary.entropy[0, :2], [0, (halves + quarters) / 3], atol=1e-15)
    assert summary.preferred.tolist() == [[0, 1, 1]]
    # Of the two halves the first position is preferred.
    np.testing.assert_allclose(summary.preferred_share, [[1, 2 / 3, 1 / 3]])
    assert summary.mean.dtype == summary.preferred_share.dtype == np.float64


def test_entropy_runs_from_none_to_the_log_of_the_visible_positions():
    uniform = np.tril(np.ones((4, 4))) / np.arange(1, 5)[:, None]
    np.testing.assert_allclose(row_entropy(uniform), np.log([1, 2, 3, 4]), atol=1e-15)
    assert row_entropy(np.eye(4)).tolist() == [0, 0, 0, 0]
    gradient = jax.grad(lambda p: row_entropy(p).sum())(jnp.eye(4))
    assert np.isfinite(gradient).all()


def test_the_score_of_patterns_made_by_hand():
    score = reversal_score(HAND_MADE, [(2, 0), (1, 1), (2, 1)])
    np.testing.assert_allclose(score.attention, [[1 / 3, 0.75, 0.4]])
    np.testing.assert_allclose(score.largest, [[1 / 3, 2 / 3, 1 / 3]])
    assert score.attention.dtype == score.largest.dtype == np.float64


def test_a_head_that_reads_in_reverse_scores_one_at_every_predicting_row():
    task = ReverseIncrement()
    reading = np.eye(8)[[0, 0, 0, 0, 4, 3, 2, 1]]  # col = 8 - row at rows 4..7
    score = reversal_score(reading[None, None], reading_cells(task))
    assert score.attention.tolist() == score.largest.tolist() == [[1, 1, 1, 1]]
    off_by_one = [(row, column + 1) for row, column in reading_cells(task)]
    assert reversal_score(reading[None, None], off_by_one).attention.tolist() == [[0, 0, 0, 0]]


def test_no_preference_is_no_reading():
    uniform = np.tril(np.ones((8, 8))) / np.arange(1, 9)[:, None]
    score = reversal_score(uniform[None, None], reading_cells(ReverseIncrement()))
    np.testing.assert_allclose(score.attention[0], 1 / np.arange(5, 9))
    assert score.largest.tolist() == [[0, 0, 0, 0]]


def test_patterns_are_those_of_the_cache(two_heads, tokens):
    _, cache = two_heads.run_with_cache(tokens)
    patterns = attention_patterns(two_heads, tokens)
    assert patterns.shape == (2, len(tokens), 2, 8, 8)
    cells = reading_cells(ReverseIncrement())
    score = reversal_score(patterns, cells)
    summary = attention_summary(two_heads, tokens)
    for layer in range(2):
        np.testing.assert_allclose(patterns[layer], cache["pattern", layer], atol=1e-15)
        for whole, one in (
            (score, reversal_score(cache["pattern", layer], cells)),
            (summary, summarize_patterns(cache["pattern", layer])),
        ):
            for ours, theirs in zip(whole, one, strict=True):
                assert ours.dtype == theirs.dtype
                np.testing.assert_allclose(ours[layer], theirs, atol=1e-14)


def test_the_batch_is_the_mean_of_its_inputs(two_heads, tokens):
    patterns = attention_patterns(two_heads, tokens)
    cells = [(4, 4), (7, 1)]
    alone = [reversal_score(np.asarray(patterns)[:, i : i + 1], cells) for i in range(len(tokens))]
    score = reversal_score(patterns, cells)
    np.testing.assert_allclose(score.attention, np.mean([one.attention for one in alone], 0))
    np.testing.assert_allclose(score.largest, np.mean([one.largest for one in alone], 0))


def test_a_population_is_summarized_in_one_call(tutorial, tokens, random_weights):
    cfg = tutorial.model
    runs = [random_weights(cfg, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *runs)
    cells = reading_cells(tutorial.task)

    def measured(params):
        model = HookedTransformer(cfg, params=params)
        patterns = attention_patterns(model, tokens)
        return attention_summary(model, tokens), reversal_score(patterns, cells)

    together = jax.jit(jax.vmap(measured))(stacked)
    loop = jax.tree.map(lambda *arrays: jnp.stack(arrays), *map(measured, runs))
    assert jax.tree.structure(together) == jax.tree.structure(loop)
    for joint, alone in zip(jax.tree.leaves(together), jax.tree.leaves(loop), strict=True):
        assert joint.dtype == alone.dtype
        np.testing.assert_allclose(joint, alone, atol=1e-5)


def test_one_program_serves_every_model_of_a_config(tutorial, random_weights):
    before = attention._summary._cache_size()
    tokens = tutorial.task.sequences()[:7, :-1]
    for seed in range(3):
        params = random_weights(tutorial.model, seed)
        attention_summary(HookedTransformer(tutorial.model, params=params), tokens)
    assert attention._summary._cache_size() == before + 1


@pytest.mark.parametrize("cell", [(8, 1), (4, 8), (-1, 0), (4, -4)])
def test_a_cell_outside_the_pattern_is_refused(two_heads, tokens, cell):
    with pytest.raises(
        UserError, match="lies outside the attention pattern of 8 rows and 8 columns"
    ):
        reversal_score(attention_patterns(two_heads, tokens), [(4, 4), cell])


def test_other_bad_input_is_refused(two_heads, tokens):
    with pytest.raises(UserError, match="no cells of the attention patterns to score"):
        reversal_score(HAND_MADE, [])
    for function in (summarize_patterns, lambda patterns: reversal_score(patterns, [(1, 1)])):
        with pytest.raises(UserError, match=r"not \[1, 3, 3\]; give one input as a batch of one"):
            function(HAND_MADE[0])
    with pytest.raises(UserError, match="found 9"):
        attention_summary(two_heads, np.full((1, 8), 9))
    with pytest.raises(UserError, match="must have shape"):
        attention_patterns(two_heads, tokens[None])
