from __future__ import annotations

import jax
import numpy as np
import pytest

from jax_revinc import HookedTransformer, HookedTransformerConfig, UserError, numerics
from jax_revinc.analysis.increment import component_labels, frozen_parts, increment_score
from revinc.tasks import eval_positions

INCREMENTS_AT = {
    "ov": "L0H0",
    "mlp": "0_mlp_out",
    "ov, and an mlp that amplifies": "L0H0",
    "mlp, from a code that attention writes": "0_mlp_out",
    "unembedding": "embed",
    "mlp, before attention moves it": "0_mlp_out",
}


@pytest.fixture(scope="module")
def score(tutorial):
    """`increment_score` on the whole task, with its components by name."""
    task = tutorial.task

    def scored(model):
        return increment_score(
            model, task.sequences(), eval_positions(task), task.sources, task.answers
        )

    return scored


def by_label(model, values):
    return dict(zip(component_labels(model.cfg), np.asarray(values).tolist(), strict=True))


@pytest.mark.parametrize("where", INCREMENTS_AT)
@pytest.mark.parametrize("normalization_type", [None, "LN"])
def test_the_component_that_increments_is_found(
    hand_built, tutorial, score, where, normalization_type
):
    model = hand_built(where, normalization_type)
    sequences = tutorial.task.sequences()
    predicted = np.asarray(model(sequences[:, :-1]))[:, 4:].argmax(-1)
    assert np.array_equal(predicted, sequences[:, 5:])  # it solves the task

    scores = by_label(model, score(model).increment)
    assert scores.pop(INCREMENTS_AT[where]) > 0.8
    assert max(scores.values()) < 1e-3


def test_what_amplifies_creates_nothing_but_is_seen_to_pass_on(hand_built, score):
    model = hand_built("ov, and an mlp that amplifies")
    result = score(model)
    share, passed_on = by_label(model, result.share), by_label(model, result.passed_on)
    # The head writes 10 and the MLP adds 4 * (10 - 5), or now and then 4 * (11 - 5).
    assert share["L0H0"] == pytest.approx(1 / 3, abs=0.02)
    assert passed_on["0_mlp_out"] == pytest.approx(2 / 3, abs=0.02)
    assert share["0_mlp_out"] == pytest.approx(0, abs=1e-3)


def test_copies_and_increments_have_the_correlations_of_permutations(hand_built, score):
    """Two permutations of four symbols without a common point correlate by -1/3."""
    model = hand_built("mlp")
    result = score(model)
    assert by_label(model, result.copy)["L0H0"] == pytest.approx(1)
    # The MLP adds the increment and takes the copy away: (S - C) . S / |S - C| / |S|.
    assert by_label(model, result.increment)["0_mlp_out"] == pytest.approx(4 / 24**0.5, abs=0.01)
    np.testing.assert_allclose(np.asarray(result.writes).sum(-1), 0, atol=1e-4)
    copied = 10 * (np.eye(4) - 1 / 4)
    np.testing.assert_allclose(np.asarray(result.writes)[1], copied, atol=1e-4)
    np.testing.assert_allclose(np.asarray(result.reads)[1], copied / 10, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_heads": 2, "n_layers": 3},
        {"attn_only": True},
        {"normalization_type": "LNPre"},
        {"normalization_type": None},
    ],
    ids=str,
)
def test_the_parts_sum_to_the_logits(tutorial, tokens, random_weights, changes):
    cfg = tutorial.model.replace(dtype="float64", **changes)
    silent = ("W_pos", "b_V", "b_O", "b_U", "ln1.b", "ln2.b", "ln_final.b")
    weights = {
        name: weight * (not name.endswith(silent)) for name, weight in random_weights(cfg).items()
    }
    model = HookedTransformer(cfg, params=weights)
    with numerics(cfg):
        logits, cache = jax.jit(HookedTransformer.run_with_cache)(model, tokens)
        writes, reads = jax.jit(frozen_parts)(model, tokens, cache)
    logits, writes = np.asarray(logits), np.asarray(writes)
    assert len(writes) == len(reads) == len(component_labels(cfg))
    np.testing.assert_allclose(writes.sum(0), logits, atol=1e-12 * np.abs(logits).max())


def test_an_mlp_that_writes_twice_what_it_reads_reads_half_of_what_it_writes(random_weights):
    """The two maps of a component are in one unit, also if a later head moves what it writes."""
    cfg = HookedTransformerConfig(
        n_layers=2, d_model=4, d_head=2, n_heads=2, d_mlp=8, d_vocab=5, n_ctx=9, dtype="float64"
    ).replace(normalization_type=None)
    weights = random_weights(cfg)
    # relu(x) - relu(-x) = x
    weights["blocks.0.mlp.W_in"] = np.concatenate([np.eye(4), -np.eye(4)], axis=1)
    weights["blocks.0.mlp.W_out"] = 2 * np.concatenate([np.eye(4), -np.eye(4)])
    weights["blocks.0.mlp.b_in"][:] = weights["blocks.0.mlp.b_out"][:] = 0
    model, tokens = HookedTransformer(cfg, params=weights), np.arange(40).reshape(5, 8) % 5
    with numerics(cfg):
        _, cache = jax.jit(HookedTransformer.run_with_cache)(model, tokens)
        writes, reads = jax.jit(frozen_parts)(model, tokens, cache)
    mlp = component_labels(cfg).index("0_mlp_out")
    writes, reads = np.asarray(writes[mlp]), np.asarray(reads[mlp])
    np.testing.assert_allclose(writes, 2 * reads, atol=1e-12 * np.abs(writes).max())


def test_maps_are_centred_by_rows_and_columns(tutorial, random_weights, score):
    result = score(HookedTransformer(tutorial.model, params=random_weights(tutorial.model)))
    for maps in map(np.asarray, (result.writes, result.reads)):
        assert np.abs(maps).max() > 0.01
        for axis in (-1, -2):
            np.testing.assert_allclose(maps.sum(axis), 0, atol=1e-5 * np.abs(maps).max())


def test_many_models_at_once(hand_built, score):
    models = [hand_built(where) for where in ("ov", "mlp", "unembedding")]
    (cfg,) = {model.cfg for model in models}
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(m.params for m in models))
    together = jax.vmap(lambda p: score(HookedTransformer(cfg, params=p)))(stacked)
    assert np.asarray(together.increment).argmax(1).tolist() == [1, 2, 0]
    for i, model in enumerate(models):
        for all_, alone in zip(together, score(model), strict=True):
            np.testing.assert_allclose(all_[i], alone, rtol=1e-5, atol=1e-5)


def test_it_has_gradients(tutorial, random_weights, score):
    cfg = tutorial.model.replace(n_layers=1)

    def increment_of_the_mlp(params):
        return score(HookedTransformer(cfg, params=params)).increment[-1]

    gradients = jax.jit(jax.grad(increment_of_the_mlp))(random_weights(cfg))
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert np.abs(gradients["blocks.0.mlp.W_out"]).max() > 0


def test_bad_input_is_named(hand_built, tutorial):
    model, task = hand_built("ov"), tutorial.task
    predicted = eval_positions(task)
    with pytest.raises(UserError, match=r"a source .* for each of 4 predicted positions"):
        increment_score(model, task.sequences(), predicted, task.sources[:2], task.answers)
    with pytest.raises(UserError, match=r"predicted must hold .* in 1\.\.8, not \(9,\)"):
        increment_score(model, task.sequences(), [9], task.sources[:1], task.answers)
    with pytest.raises(UserError, match=r"sources must be an integer, not 1\.5"):
        increment_score(model, task.sequences(), predicted, [1.5], task.answers)
    with pytest.raises(UserError, match=r"tokens \[0\] at position 1, a source"):
        increment_score(model, task.sequences()[:64], predicted, task.sources[::-1], task.answers)
