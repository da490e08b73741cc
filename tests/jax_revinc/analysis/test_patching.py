"""Patching by site, by path and by gradient, against hooks, by hand, and where it must be exact."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_revinc import HookedTransformer, HookedTransformerConfig, UserError, numerics
from jax_revinc.analysis import patching
from jax_revinc.analysis.patching import AXES, patch_sweep
from jax_revinc.analysis.path_patching import (
    attribution_patch,
    check_attribution_patch,
    is_edge,
    path_patch,
    path_table,
    receivers,
    senders,
)
from jax_revinc.analysis.simd_vmap import simd_vmap

CFG = HookedTransformerConfig(
    n_layers=2, d_model=4, d_head=2, d_mlp=3, d_vocab=5, n_ctx=3, dtype="float64"
)
LINEAR = CFG.replace(normalization_type=None)
BARE = CFG.replace(attn_only=True)


def per_pair(logits):
    """Differs from position to position and token to token, and is not linear."""
    weights = jnp.cos(jnp.arange(logits[0].size)).reshape(logits.shape[1:])
    return (jnp.tanh(logits) * weights).sum((1, 2))


def mean(logits):
    return per_pair(logits).mean()


def last_logit(logits):
    return logits[:, -1, 0]


def mean_last_logit(logits):
    return last_logit(logits).mean()


@pytest.fixture(scope="module")
def pair():
    """Clean and corrupted tokens."""
    return np.random.default_rng(0).integers(0, 5, size=(2, 4, 3))


@pytest.fixture(scope="module")
def models(random_weights):
    return {cfg: HookedTransformer(cfg, params=random_weights(cfg)) for cfg in (CFG, LINEAR, BARE)}


@pytest.fixture(scope="module")
def sweep(models, pair):
    return patch_sweep(models[CFG], *pair, per_pair)


def test_each_site_is_patched_for_each_pair(models, pair, sweep):
    model, (clean, corrupted) = models[CFG], pair
    _, cache = model.run_with_cache(clean)
    assert set(sweep.patched) == set(AXES)
    for name, patched in sweep.patched.items():
        has_heads = "head" in AXES[name]
        assert patched.shape == ((2, 3, 2, 4) if has_heads else (2, 3, 4))
        for layer, pos, *head in [(0, 1, 1), (1, 2, 0)] if has_heads else [(0, 1), (1, 2)]:
            at = (slice(None), *head, pos) if name == "pattern" else (slice(None), pos, *head)

            def edit(activation, hook, at=at):
                return activation.at[at].set(cache[hook.name][at])

            hook_name = patching.get_act_name(name, layer)
            with numerics(CFG):
                expected = per_pair(model.run_with_hooks(corrupted, fwd_hooks=[(hook_name, edit)]))
            np.testing.assert_allclose(
                patched[(layer, pos, *head)], expected, rtol=0, atol=1e-12, err_msg=name
            )


def test_the_runs_that_are_not_patched_are_given_too(models, pair, sweep):
    for tokens, found in zip(pair, (sweep.clean, sweep.corrupted), strict=True):
        with numerics(CFG):
            expected = per_pair(models[CFG](tokens))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_patching_nothing_but_equal_inputs_changes_nothing(models, pair):
    same = patch_sweep(models[CFG], pair[0], pair[0], per_pair, ["resid_pre", "z"])
    for patched in same.patched.values():
        np.testing.assert_allclose(patched, np.broadcast_to(same.clean, patched.shape), atol=1e-12)


def test_many_models_at_once_give_what_each_gives(random_weights, pair):
    cfg = CFG.replace(n_layers=1, n_heads=1, normalization_type=None)
    several = [random_weights(cfg, seed) for seed in (0, 1)]

    def of_params(params):
        model = HookedTransformer(cfg, params=params)
        return (
            patch_sweep(model, *pair, per_pair, ["mlp_out"]).patched,
            path_patch(model, *pair, mean),
            attribution_patch(model, *pair, per_pair, ["z"]),
        )

    with numerics(CFG):
        together = jax.jit(jax.vmap(of_params))(jax.tree.map(lambda *x: np.stack(x), *several))
    for i, params in enumerate(several):
        jax.tree.map(
            lambda found, expected, i=i: np.testing.assert_allclose(found[i], expected, atol=1e-11),
            together,
            of_params(params),
        )


def test_in_a_model_without_norm_the_edges_into_the_logits_add_up(models, pair):
    """The logits are then linear in what is written, so corrupting all writers corrupts the run."""
    found = path_patch(models[LINEAR], *pair, mean_last_logit)
    whole = [i for i, sender in enumerate(senders(LINEAR)) if sender.head is None]
    with numerics(LINEAR):
        clean, corrupted = (mean_last_logit(models[LINEAR](tokens)) for tokens in pair)
    into_logits = np.asarray(found.effects)[:, -1]
    assert into_logits[whole].sum() == pytest.approx(float(corrupted) - float(clean))
    heads = [i for i, sender in enumerate(senders(LINEAR)) if sender.hook == "blocks.1.attn.hook_z"]
    layer = [sender.name for sender in senders(LINEAR)].index("1_attn_out")
    np.testing.assert_allclose(into_logits[heads].sum(), into_logits[layer], atol=1e-12)


def test_an_edge_is_what_it_is_by_hand(models, pair):
    """The embedding as the queries of one head of layer 1 see it; the rest of the run is clean."""
    model, (clean, corrupted) = models[CFG], pair
    found = path_patch(model, clean, corrupted, mean)
    weights = {name: np.asarray(weight) for name, weight in model.params.items()}
    _, cache = model.run_with_cache(clean)
    stream = np.asarray(cache["resid_pre", 1])
    stream = stream + weights["embed.W_E"][corrupted] - weights["embed.W_E"][clean]
    stream = stream - stream.mean(-1, keepdims=True)
    normalized = stream / np.sqrt((stream**2).mean(-1, keepdims=True) + CFG.eps)
    normalized = normalized * weights["blocks.1.ln1.w"] + weights["blocks.1.ln1.b"]
    q = normalized @ weights["blocks.1.attn.W_Q"][1] + weights["blocks.1.attn.b_Q"][1]
    edits = [("blocks.1.attn.hook_q", lambda x, hook: x.at[:, :, 1].set(q))]
    with numerics(CFG):
        expected = float(mean(model.run_with_hooks(clean, fwd_hooks=edits))) - float(found.clean)
    row = [sender.name for sender in senders(CFG)].index("embed")
    column = [receiver.name for receiver in receivers(CFG)].index("L1H1 q")
    assert abs(expected) > 1e-4
    assert np.asarray(found.effects)[row, column] == pytest.approx(expected, abs=1e-12)


def test_edges_lead_onwards_only(models, pair):
    found = path_patch(models[CFG], *pair, mean)
    edges = np.array([[is_edge(CFG, s, r) for r in receivers(CFG)] for s in senders(CFG)])
    assert not np.any(np.asarray(found.effects)[~edges])
    differs = np.array([sender.name != "pos_embed" for sender in senders(CFG)])
    assert np.mean(np.abs(found.effects)[edges & differs[:, None]] > 1e-6) > 0.9
    # Positions are the same in both runs.
    np.testing.assert_allclose(np.asarray(found.effects)[~differs], 0, atol=1e-12)
    by_name = {(s.name, r.name) for s in senders(CFG) for r in receivers(CFG) if is_edge(CFG, s, r)}
    assert ("L0H1", "0_mlp_in") in by_name
    assert ("0_mlp_out", "L1H0 v") in by_name
    assert ("1_mlp_out", "logits") in by_name
    assert ("1_mlp_out", "1_mlp_in") not in by_name
    assert ("L0H0", "L0H1 k") not in by_name
    table = path_table(CFG, found)
    assert {(row.sender, row.receiver) for row in table.itertuples()} == by_name
    assert not any("MLP" in r.name for r in [*receivers(BARE), *senders(BARE)])


def test_the_gradient_is_exact_where_the_metric_is_linear(models, pair):
    """Without norms the last layer's outputs add to the logits."""
    found = check_attribution_patch(models[LINEAR], *pair, last_logit, ["attn_out", "mlp_out", "z"])
    exact = found.exact.patched
    np.testing.assert_allclose(found.estimated["mlp_out"][1], exact["mlp_out"][1], atol=1e-12)
    assert np.ptp(exact["mlp_out"][1]) > 1e-2
    assert float(found.error["z"]) > 1e-3  # layer 0 is read by softmax and relu


def far_from_zero(logits):
    return last_logit(logits) + 1000


def test_the_estimates_error_is_a_share_of_the_largest_effect(models, pair):
    """Not of the metric, which may be far larger."""
    found = check_attribution_patch(models[CFG], *pair, far_from_zero, ["z", "resid_pre"])
    for name in found.estimated:
        exact, corrupted = np.asarray(found.exact.patched[name]), np.asarray(found.exact.corrupted)
        estimated = np.asarray(found.estimated[name])
        expected = np.abs(estimated - exact).max() / np.abs(exact - corrupted).max()
        assert float(found.error[name]) == pytest.approx(expected)
        assert expected > 1e-3


def test_the_gradient_approaches_the_exact_for_small_changes(models, random_weights, sweep, pair):
    """By finite differences: between inputs whose embeddings differ less, the error falls faster."""
    weights = random_weights(CFG)
    errors = []
    for scale in (1e-2, 1e-3):
        near = weights | {"embed.W_E": 1 + scale * weights["embed.W_E"]}
        model = HookedTransformer(CFG, params=near)
        found = check_attribution_patch(model, *pair, per_pair)
        errors.append(max(float(error) for error in found.error.values()))
    assert errors[1] < errors[0] / 5
    estimated = attribution_patch(models[CFG], *pair, per_pair)
    assert {n: e.shape for n, e in estimated.items()} == {
        n: e.shape for n, e in sweep.patched.items()
    }


def test_simd_vmap_is_a_vmap():
    """On operations that are written out and others, on axes of every kind."""
    rng = np.random.default_rng(0)
    shared = {"w": rng.normal(size=(2, 3, 4)), "big": rng.normal(size=(3, 50))}
    each = rng.normal(size=(5, 3, 6)), rng.integers(0, 2, size=(2, 6))

    def function(shared, each):
        x, ids = each
        y = jnp.einsum("pm,hmf->phf", x @ x.T @ jnp.ones((5, 3)), shared["w"])
        z = jax.nn.softmax(jnp.einsum("phf,qhf->hpq", y, y), -1) - y.max() + y.sum((1, 2))
        wide = jax.nn.relu(x @ shared["big"]) @ shared["big"].T
        looked_up = jnp.where(ids[0] > 0, jnp.asarray(shared["w"])[ids[1]], 0.5)
        ordered = jnp.sort(x, 0).reshape(3, 5)
        return {
            "z": z,
            "wide": wide,
            "looked up": looked_up,
            "ordered": ordered,
            "w": shared["w"],
            "n": ids @ ids,
        }

    with numerics(CFG):
        expected = jax.vmap(function, in_axes=(None, -1), out_axes=-1)(shared, each)
        found = jax.jit(simd_vmap(function))(shared, each)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_allclose(found[name], array, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("function", [patch_sweep, attribution_patch, path_patch])
def test_clean_and_corrupted_tokens_must_match(models, pair, function):
    clean, corrupted = pair
    with pytest.raises(UserError, match=r"clean tokens \[4, 3\] and corrupted tokens \[4, 2\]"):
        function(models[CFG], clean, corrupted[:, :2], per_pair)
    with pytest.raises(UserError, match=r"clean tokens \[4, 3\] and corrupted tokens \[2, 3\]"):
        function(models[CFG], clean, corrupted[:2], per_pair)
    with pytest.raises(UserError, match=r"must have shape \[batch, pos\]"):
        function(models[CFG], clean[None], corrupted, per_pair)


def test_a_metric_of_a_wrong_shape_is_refused(models, pair):
    model, (clean, corrupted) = models[CFG], pair
    _, cache = model.run_with_cache(clean)
    with pytest.raises(UserError, match=r"one number per pair, not an array of shape \[\]"):
        patch_sweep(model, clean, corrupted, mean)
    with pytest.raises(UserError, match=r"one number per pair, not an array of shape \[\]"):
        attribution_patch(model, clean, corrupted, mean)
    with pytest.raises(UserError, match=r"one number, not an array of shape \[4\]"):
        path_patch(model, clean, corrupted, per_pair)
    with pytest.raises(UserError, match=r"one number, not an array of shape \[4\]"):
        patching.get_act_patch_resid_pre(model, corrupted, cache, per_pair)


def test_what_the_model_or_the_cache_lacks_is_named(models, pair):
    clean, corrupted = pair
    with pytest.raises(UserError, match="no activation 'atn_out' to patch; did you mean attn_out"):
        patch_sweep(models[CFG], clean, corrupted, per_pair, ["atn_out"])
    _, cache = models[BARE].run_with_cache(clean)
    for function in (patching.get_act_patch_mlp_out, patching.get_act_patch_block_every):
        with pytest.raises(UserError, match=r"no activation mlp_out to patch, .*: attn_only=True"):
            function(models[BARE], corrupted, cache, mean)
    _, partial = models[CFG].run_with_cache(clean, names_filter=["blocks.0.hook_resid_pre"])
    with pytest.raises(UserError, match=r"clean_cache lacks blocks\.1\.hook_resid_pre"):
        patching.get_act_patch_resid_pre(models[CFG], corrupted, partial, mean)
    with pytest.raises(UserError, match=r"shape \[4, 3, 4\] in clean_cache and \[4, 2, 4\]"):
        patching.get_act_patch_resid_pre(models[BARE], corrupted[:, :2], cache, mean)


@pytest.mark.parametrize("metric", [None, 1.5, "loss", [mean], {}])
def test_what_is_no_metric_is_refused(models, pair, metric):
    cache = models[CFG].run_with_cache(pair[0])[1]
    for call in (
        lambda: patch_sweep(models[CFG], *pair, metric),
        lambda: attribution_patch(models[CFG], *pair, metric),
        lambda: path_patch(models[CFG], *pair, metric),
        lambda: patching.get_act_patch_resid_pre(models[CFG], pair[1], cache, metric),
    ):
        with pytest.raises(UserError, match="metric must be a hashable function of the logits"):
            call()


@pytest.mark.parametrize("sites", [3, "z", [["z"]], [1]])
def test_what_are_no_sites_is_refused(models, pair, sites):
    with pytest.raises(UserError, match=r"sites must be a list|there is no activation .* to patch"):
        patch_sweep(models[CFG], *pair, per_pair, sites)
