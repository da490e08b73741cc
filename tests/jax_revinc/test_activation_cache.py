"""The cache as a mapping and as a pytree, and what its methods do; the numbers are in tests/parity."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_revinc import (
    ActivationCache,
    HookedTransformer,
    HookedTransformerConfig,
    UserError,
)

CFG = HookedTransformerConfig(
    n_layers=2, d_model=4, d_head=2, n_heads=2, d_mlp=3, d_vocab=5, n_ctx=8
)
TOKENS = np.random.default_rng(0).integers(0, 5, size=(3, 6))
RESULTS = ["blocks.0.attn.hook_result", "blocks.1.attn.hook_result"]


@pytest.fixture
def cache():
    activations = {
        "hook_embed": np.array(0.0),
        "blocks.0.attn.hook_pattern": np.array(1.0),
        "blocks.1.attn.hook_pattern": np.array(2.0),
        "blocks.1.ln2.hook_normalized": np.array(3.0),
        "ln_final.hook_scale": np.array(4.0),
    }
    return ActivationCache(activations, SimpleNamespace(cfg=CFG))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hook_embed", 0),
        ("embed", 0),
        (("embed",), 0),
        (("embed", None), 0),
        ("blocks.0.attn.hook_pattern", 1),
        (("pattern", 0), 1),
        (("attn", 0), 1),
        ("pattern1", 2),
        (("pattern", 1, "attn"), 2),
        (("pattern", -1), 2),
        (("pattern", -2), 1),
        (("pattern", np.int64(1)), 2),
        (("pattern", np.int64(-1)), 2),
        (("normalized", 1, "ln2"), 3),
        (("normalized", -1, "ln2"), 3),
        ("scale", 4),
    ],
)
def test_a_cache_is_indexed_by_names_and_shorthands(cache, key, value):
    assert cache[key] == value
    assert key in cache


@pytest.mark.parametrize(
    "key", [("pattern", 2), ("pattern", -3), "hook_embedd", ("q", 0), 0, (1, 2), ("pattern", 0.5)]
)
def test_a_missing_activation_is_a_key_error_that_names_it(cache, key):
    assert key not in cache
    with pytest.raises(KeyError, match="is not in the cache"):
        cache[key]


def test_a_cache_is_a_mapping_in_order(cache):
    assert len(cache) == 5
    assert list(cache)[:2] == ["hook_embed", "blocks.0.attn.hook_pattern"]
    assert dict(cache.items()) == cache.cache_dict


def test_a_cache_prints_names_and_shapes():
    cache = ActivationCache({"hook_embed": jnp.zeros((2, 3, 4)), "ln_final.hook_scale": 1.0}, None)
    assert repr(cache).splitlines() == [
        "ActivationCache, by hook name and shape:",
        "  hook_embed [2, 3, 4]",
        "  ln_final.hook_scale []",
    ]


def test_a_cache_is_a_pytree_that_keeps_its_order(cache):
    doubled = jax.tree.map(lambda activation: 2 * activation, cache)
    assert isinstance(doubled, ActivationCache)
    assert list(doubled) == list(cache)
    assert doubled["pattern", -1] == 4
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(cache)]
    assert jax.tree_util.keystr(paths[0]) == "['hook_embed']"


@pytest.fixture
def model(random_weights):
    return HookedTransformer(CFG, params=random_weights(CFG))


@pytest.fixture
def run(model):
    return model.run_with_cache(TOKENS)[1]


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def test_the_leaves_are_the_activations_alone(run):
    assert len(jax.tree.leaves(run)) == len(run)
    third = jax.tree.map(lambda activation: activation[2], run)
    assert third.model is run.model
    close(third.stack_head_results(), run.stack_head_results()[:, 2])


def test_a_cache_that_leaves_jit_or_vmap_has_no_model_until_it_is_given_one(model, run):
    def make(model, tokens):
        cache = model.run_with_cache(tokens)[1]
        return cache, cache.stack_head_results(apply_ln=True)

    jitted, made_inside = jax.jit(make)(model, TOKENS)
    several = jax.tree.map(lambda weights: jnp.stack([weights, 2 * weights]), model)
    each, _ = jax.vmap(make, in_axes=(0, None))(several, TOKENS)
    close(each["resid_post", -1][0], run["resid_post", -1])
    close(jitted["resid_post", -1], run["resid_post", -1])
    for cache in (jitted, each):
        assert cache.model is None
        assert cache.has_embed
        with pytest.raises(UserError, match=r"weights.*ActivationCache\(cache.cache_dict, model\)"):
            cache.get_full_resid_decomposition()
    close(jitted.decompose_resid(apply_ln=True), run.decompose_resid(apply_ln=True))
    again = ActivationCache(jitted.cache_dict, model)
    expected = run.stack_head_results(apply_ln=True)
    close(again.stack_head_results(apply_ln=True), expected)
    close(made_inside, expected)


def test_a_jitted_function_of_a_cache_never_sees_stale_weights(model, run, random_weights):
    traces = []

    @jax.jit
    def neurons(cache):
        traces.append(cache)
        return cache.stack_neuron_results(-1)

    before = neurons(run)
    neurons(model.run_with_cache(TOKENS[::-1])[1])
    assert len(traces) == 1
    close(before, run.stack_neuron_results(-1))
    model.load_state_dict(random_weights(CFG, seed=1))
    after = neurons(run)
    assert len(traces) == 2
    close(after, run.stack_neuron_results(-1))
    assert np.abs(np.asarray(after - before)).max() > 0.1
    run.model = None
    with pytest.raises(UserError, match="needs the model's weights"):
        neurons(run)


def test_vmap_and_grad_of_methods(run):
    each = jax.vmap(lambda cache: cache.get_full_resid_decomposition(apply_ln=True))(run)
    close(each, jnp.moveaxis(run.get_full_resid_decomposition(apply_ln=True), 1, 0))
    slopes = jax.grad(lambda cache: cache.stack_head_results(1)[0].sum())(run)
    assert isinstance(slopes, ActivationCache)
    expected = run.model.blocks[0].attn.W_O[...].sum(-1)[0]
    close(slopes["z", 0][:, :, 0], jnp.broadcast_to(expected, (3, 6, 2)))
    assert not np.asarray(slopes["z", 1]).any()


def test_a_position_may_be_traced(run):
    whole = run.decompose_resid(apply_ln=True)
    each = jax.vmap(lambda position: run.decompose_resid(apply_ln=True, pos_slice=position))(
        jnp.arange(6)
    )
    close(each, jnp.moveaxis(whole, 2, 0))


def test_a_batch_is_sliced(model, run):
    one, some = run.apply_slice_to_batch_dim(1), run.apply_slice_to_batch_dim([2, 0])
    assert (one.has_batch_dim, some.has_batch_dim) == (False, True)
    assert one.model is some.model is model
    for name in run:
        np.testing.assert_array_equal(one[name], run[name][1])
        np.testing.assert_array_equal(some[name], np.asarray(run[name])[[2, 0]])
    close(one.stack_neuron_results(2), run.stack_neuron_results(2)[:, 1])
    assert list(one.apply_slice_to_batch_dim(None)) == list(run)
    with pytest.raises(UserError, match="no batch axis"):
        one.apply_slice_to_batch_dim(0)
    with pytest.raises(UserError, match="the input 3 does not exist"):
        run.apply_slice_to_batch_dim(3)
    with pytest.raises(UserError, match="a batch of one sequence, not of 3"):
        run.remove_batch_dim()
    single = run.apply_slice_to_batch_dim((1, 2))
    assert single.remove_batch_dim() is single.remove_batch_dim()
    np.testing.assert_array_equal(single["pattern", 0], one["pattern", 0])


def test_a_run_without_batch_axis_says_so(model):
    _, cache = model.run_with_cache(TOKENS[:1], remove_batch_dim=True)
    assert not cache.has_batch_dim
    assert cache.decompose_resid(pos_slice=-1).shape == (6, 4)


def test_head_results_are_added_to_the_cache(model, run):
    assert not run.keys() & set(RESULTS)
    before = run.stack_head_results()
    assert not run.keys() & set(RESULTS)
    run.compute_head_results()
    np.testing.assert_array_equal(run.stack_head_results(), before)
    assert list(run)[-2:] == RESULTS
    assert run["result", 1].shape == (3, 6, 2, 4)
    close(run["result", 1].sum(2) + model.blocks[1].attn.b_O[...], run["attn_out", 1])


def test_head_results_that_a_hook_edited_are_stacked_as_they_are(random_weights):
    cfg = CFG.replace(use_attn_result=True)
    model = HookedTransformer(cfg, params=random_weights(cfg))
    _, cache = model.run_with_cache(
        TOKENS, fwd_hooks=[("blocks.0.attn.hook_result", lambda result, hook: 0 * result)]
    )
    assert not np.asarray(cache.stack_head_results(1)).any()


def test_a_cache_of_some_activations_leaves_the_missing_embeddings_out(model):
    _, cache = model.run_with_cache(TOKENS, names_filter=lambda name: name.endswith("attn_out"))
    assert not cache.has_embed
    _, labels = cache.decompose_resid(mode="attn", return_labels=True)
    assert labels == ["0_attn_out", "1_attn_out"]
    with pytest.raises(KeyError, match="mlp_out is not in the cache"):
        cache.decompose_resid()


def test_a_stack_without_components_axis_is_scaled_too(run):
    """As in TransformerLens' demo: the final residual stream at the last position."""
    final = run["resid_post", -1]
    close(run.apply_ln_to_stack(final), run["normalized"])
    close(run.apply_ln_to_stack(final[:, -1], layer=-1, pos_slice=-1), run["normalized"][:, -1])


def test_tokens_may_be_given_once_for_all_inputs(run):
    stack = run.decompose_resid()
    at_positions = np.array([0, 1, 2, 3, 4, 0])
    close(
        run.logit_attrs(stack, at_positions),
        run.logit_attrs(stack, np.broadcast_to(at_positions, (3, 6))),
    )
    with pytest.raises(UserError, match="toy model has no tokenizer"):
        run.logit_attrs(stack, " road")


def test_a_cache_moves_to_a_device(run):
    device = jax.devices("cpu")[0]
    before = np.asarray(run["embed"])
    for name in ("cpu", "cpu:0", device):
        assert run.to(name) is run
        assert run["embed"].devices() == {device}
    np.testing.assert_array_equal(run["embed"], before)
    for name in ("mps", "cpu:99", 3):
        with pytest.raises(UserError, match="JAX sees no device"):
            run.to(name)


def test_there_is_no_switch_for_gradients(run):
    assert run.toggle_autodiff() is None
    with pytest.raises(UserError, match=r"jax\.grad"):
        run.toggle_autodiff(True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda cache: cache.stack_activation("pattern", 0), "nothing to stack"),
        (lambda cache: cache.stack_activation("pattern", 3), "layer 3 does not exist"),
        (lambda cache: cache.get_neuron_results(2), "layer 2 does not exist"),
        (lambda cache: cache.get_neuron_results(0, 3), "neuron 3 does not exist"),
        (
            lambda cache: cache.stack_neuron_results(1, project_output_onto=jnp.ones((3, 2))),
            r"d_model=4, not \[3, 2\]",
        ),
        (lambda cache: ActivationCache(dict(cache), None)["pattern", -1], "knows no model"),
        (lambda cache: ActivationCache(dict(cache), None).decompose_resid(), "knows no model"),
    ],
)
def test_what_does_not_exist_is_refused_in_a_sentence(run, call, message):
    with pytest.raises(UserError, match=message):
        call(run)


def test_a_float64_cache_computes_in_float64_outside_numerics(random_weights):
    cfg = CFG.replace(dtype="float64")
    _, cache = HookedTransformer(cfg, params=random_weights(cfg)).run_with_cache(TOKENS)
    for array in (
        cache.apply_slice_to_batch_dim([0, 2])["embed"],
        cache.stack_activation("z"),
        cache.to("cpu")["embed"],
        cache.get_neuron_results(0, project_output_onto=np.ones(4)),
    ):
        assert array.dtype == np.float64
