from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from model_family import case

from jax_revinc import PRESETS, ActivationCache, HookedTransformer, UserError, numerics
from jax_revinc.model import hook_names

TUTORIAL_NAMES = hook_names(PRESETS["tutorial"].model)
RESID = "blocks.0.hook_resid_post"
PATTERN = "blocks.0.attn.hook_pattern"

VARIANTS = {
    "tutorial": {},
    "LNPre": {"normalization_type": "LNPre"},
    "no norm": {"normalization_type": None},
    "attn only": {"attn_only": True},
    "heads": {"n_heads": 3, "d_model": 6, "d_mlp": 7, "d_vocab_out": 6, "act_fn": "gelu_new"},
}


@pytest.fixture(scope="module")
def make_reference(random_weights):
    """A function from a config to TransformerLens' float64 model with the same random weights."""
    torch = pytest.importorskip("torch")
    transformer_lens = pytest.importorskip("transformer_lens")

    def make(cfg):
        fields = cfg.to_dict() | {"dtype": torch.float64}
        model = transformer_lens.HookedTransformer(
            transformer_lens.HookedTransformerConfig(**fields)
        )
        weights = {name: torch.tensor(w) for name, w in random_weights(cfg).items()}
        assert not model.load_state_dict(weights, strict=False).unexpected_keys
        return model

    return make


@pytest.fixture(scope="module")
def reference(model64, make_reference):
    return make_reference(model64.cfg)


@pytest.fixture
def scratch_model(tutorial, random_weights):
    """A float32 model that a test may load other weights into."""
    return HookedTransformer(tutorial.model, params=random_weights(tutorial.model))


def add(amount):
    return lambda activation, hook: activation + amount


def noise(activation, hook):
    return activation + np.random.default_rng(1).normal(size=activation.shape)


def max_difference(ours, theirs):
    return np.abs(np.asarray(ours) - np.asarray(theirs)).max()


# Names and shapes


def test_the_tutorials_model_has_285_parameters_and_40_activations(model64, tokens):
    assert sum(param.size for param in model64.params.values()) == 285
    _, cache = model64.run_with_cache(tokens)
    assert len(cache) == 40
    assert list(cache) == list(model64.hook_dict) == list(TUTORIAL_NAMES)
    assert all(hook.name == name for name, hook in model64.hook_dict.items())


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_activations_have_transformer_lens_names_order_and_values(
    tutorial, random_weights, make_reference, tokens, changes
):
    cfg = tutorial.model.replace(dtype="float64", **changes)
    with numerics(cfg):
        model = HookedTransformer(cfg, params=random_weights(cfg))
    logits, cache = model.run_with_cache(tokens)
    torch = pytest.importorskip("torch")
    their_logits, their_cache = make_reference(cfg).run_with_cache(torch.tensor(tokens).long())
    assert list(cache) == list(their_cache.cache_dict)
    assert max_difference(logits, their_logits.detach()) < 1e-12
    for name, theirs in their_cache.items():
        ours = np.asarray(cache[name])
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=1e-12, err_msg=name)


# What a call returns


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("return_type", ["logits", "loss", "both", None])
def test_return_types_are_those_of_transformer_lens(
    model64, reference, tokens, return_type, per_token
):
    torch = pytest.importorskip("torch")
    ours = model64(tokens, return_type=return_type, loss_per_token=per_token)
    theirs = reference(
        torch.tensor(tokens).long(), return_type=return_type, loss_per_token=per_token
    )
    if return_type is None:
        assert ours is theirs is None
        return
    if return_type == "both":
        assert ours._fields == theirs._fields == ("logits", "loss")
    else:
        ours, theirs = (ours,), (theirs,)
    for our, their in zip(ours, theirs, strict=True):
        assert our.shape == tuple(their.shape)
        assert max_difference(our, their.detach()) < 1e-12


def test_run_with_hooks_and_run_with_cache_return_what_a_call_returns(model64, tokens):
    for kind in ("logits", "loss"):
        called = model64(tokens, kind)
        assert np.array_equal(model64.run_with_hooks(tokens, return_type=kind), called)
        assert np.array_equal(model64.run_with_cache(tokens, return_type=kind)[0], called)
    per_token = model64(tokens, "loss", loss_per_token=True)
    hooked = model64.run_with_hooks(tokens, return_type="loss", loss_per_token=True)
    cached, _ = model64.run_with_cache(tokens, return_type="loss", loss_per_token=True)
    assert per_token.shape == (5, 7)
    assert np.array_equal(per_token, hooked)
    assert np.array_equal(per_token, cached)


def test_an_unknown_return_type_is_refused(model64, tokens):
    with pytest.raises(UserError, match="unknown return_type 'logit'; choose from logits, loss"):
        model64(tokens, return_type="logit")


# Tokens


def test_one_sequence_may_come_without_its_batch_axis(model64, reference, tokens):
    torch = pytest.importorskip("torch")
    assert model64(tokens[0]).shape == tuple(reference(torch.tensor(tokens[0]).long()).shape)
    assert np.array_equal(model64(tokens[0]), model64(tokens[:1]))


@pytest.mark.parametrize("form", [np.int64, np.uint8, np.ndarray.tolist, jnp.asarray])
def test_tokens_may_be_any_integers(model64, tokens, form):
    converted = tokens.astype(form) if isinstance(form, type) else form(tokens)
    assert np.array_equal(model64(converted), model64(tokens))


@pytest.mark.parametrize(
    ("bad", "phrase"),
    [
        ([[0, 5]], r"0\.\.4 .*found 5"),
        ([[0, -6]], r"-5\.\.-1 .*found -6"),
        ([[2**31 - 1]], "found 2147483647"),
        ([[0.0, 1.0]], "integers, not float64"),
        ([[True]], "integers, not bool"),
        ([["0"]], "integers"),
        ([[[0, 1]]], r"\[batch, pos\], not \[1, 1, 2\]"),
        (3, r"\[batch, pos\], not \[\]"),
        ([], r"\[batch, pos\], and not be empty, not \[1, 0\]"),
        (np.zeros((0, 3), int), "not be empty"),
        ([[0, 1], [2]], "sequences of equal length"),
        (None, r"\[batch, pos\]"),
        ("01", "no tokenizer"),
        ([[0, 2**70]], "integers, not object"),
        ([[0, 2**40]], "found 1099511627776"),
        ([[0] * 10], "10 tokens are longer than n_ctx=9"),
    ],
)
def test_bad_tokens_are_refused_by_what_is_wrong(model64, bad, phrase):
    for call in (model64, model64.run_with_cache, model64.run_with_hooks):
        with pytest.raises(UserError, match=phrase):
            call(bad)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "uint32", "int64", "uint64"])
def test_a_short_integer_type_does_not_overflow(random_weights, dtype):
    """Ids of a type whose largest number the vocabulary may exceed."""
    cfg = PRESETS["tutorial"].model.replace(d_vocab=300, d_vocab_out=300)
    model = HookedTransformer(cfg, params=random_weights(cfg))
    ids = [[0, 1, 127, 5]]
    expected = model(ids, return_type="loss")
    with jax.enable_x64(True):
        of_jax = jnp.array(ids, dtype)
    for tokens in (np.array(ids, dtype), of_jax):
        assert model(tokens, return_type="loss") == expected
        assert jax.jit(lambda t: model(t, return_type="loss"))(tokens) == pytest.approx(
            float(expected), rel=1e-5
        )


def test_negative_ids_count_from_the_end_eagerly_and_traced(model64, reference, tokens):
    torch = pytest.importorskip("torch")
    negative = tokens - model64.cfg.d_vocab
    with torch.no_grad():
        expected = reference(torch.tensor(negative).long())
        assert max_difference(reference(torch.tensor(tokens).long()), expected) == 0
    assert max_difference(model64(negative), expected) < 1e-12
    with numerics(model64.cfg):
        assert max_difference(jax.jit(model64)(negative), expected) < 1e-12


def test_a_target_outside_the_vocabulary_makes_the_loss_nan_under_jit(model64):
    loss = jax.jit(lambda tokens: model64(tokens, return_type="loss"))
    assert np.isfinite(loss(np.array([[4, 0, 1]])))
    assert np.isnan(loss(np.array([[4, 0, 7]])))
    fed = jax.jit(model64)
    np.testing.assert_array_equal(fed(np.array([[4, 0, 7]])), fed(np.array([[4, 0, 4]])))


def test_shapes_and_types_are_checked_under_jit_too(model64):
    with pytest.raises(UserError, match="longer than n_ctx"):
        jax.jit(model64)(np.zeros((1, 10), np.int32))
    with pytest.raises(UserError, match="integers"):
        jax.jit(model64)(np.zeros((1, 8), np.float32))


# Looking


@pytest.mark.parametrize(
    ("names_filter", "picked"),
    [
        (PATTERN, [PATTERN]),
        ([RESID, "hook_embed"], ["hook_embed", RESID]),
        (lambda name: name.endswith("hook_z"), ["blocks.0.attn.hook_z", "blocks.1.attn.hook_z"]),
        (None, list(TUTORIAL_NAMES)),
    ],
    ids=["name", "names", "predicate", "all"],
)
def test_a_filter_picks_what_is_cached(model64, tokens, names_filter, picked):
    logits, cache = model64.run_with_cache(tokens, names_filter=names_filter)
    _, everything = model64.run_with_cache(tokens)
    assert list(cache) == picked
    assert np.array_equal(logits, model64(tokens))
    for name in picked:
        assert np.array_equal(cache[name], everything[name])


def test_remove_batch_dim(model64, tokens):
    _, batched = model64.run_with_cache(tokens[:1])
    _, single = model64.run_with_cache(tokens[:1], remove_batch_dim=True)
    assert list(single) == list(batched)
    for name in single:
        assert np.array_equal(single[name], batched[name][0])
    with pytest.raises(UserError, match="batch of one"):
        model64.run_with_cache(tokens, remove_batch_dim=True)


def test_patterns_are_causal_and_sum_to_one_and_masked_scores_are_minus_infinity(model64, tokens):
    _, cache = model64.run_with_cache(tokens)
    above = np.triu(np.ones((8, 8), bool), k=1)
    for layer in (0, 1):
        pattern = np.asarray(cache["pattern", layer])
        assert np.allclose(pattern.sum(-1), 1)
        assert not pattern[..., above].any()
        assert np.isneginf(np.asarray(cache["attn_scores", layer])[..., above]).all()


def test_attention_reaches_earlier_positions_only(model64, tokens):
    # Through gradients of the positional embeddings: logit p depends on W_pos[q] iff q <= p.
    def logits(W_pos):
        params = model64.params | {"pos_embed.W_pos": W_pos}
        return HookedTransformer(model64.cfg, params=params)(tokens)

    with numerics(model64.cfg):
        jacobian = np.asarray(jax.jit(jax.jacobian(logits))(model64.params["pos_embed.W_pos"]))
    assert jacobian.shape == (5, 8, 5, 9, 4)
    influence = np.abs(jacobian).max(axis=(0, 2, 4))
    assert np.array_equal(influence > 0, np.tri(8, 9, dtype=bool))
    assert influence[influence > 0].min() > 1e-6


# Editing


@pytest.mark.parametrize("name", TUTORIAL_NAMES)
def test_a_hook_at_every_activation_changes_the_logits(model64, tokens, name):
    clean = model64(tokens)
    edited = model64.run_with_hooks(tokens, fwd_hooks=[(name, noise)])
    assert max_difference(clean, edited) > 1e-6
    assert np.isfinite(edited).all()


@pytest.mark.parametrize("name", [RESID, PATTERN, "blocks.1.hook_resid_mid", "unembed.hook_in"])
def test_an_edit_does_what_it_does_in_transformer_lens(model64, reference, tokens, name):
    torch = pytest.importorskip("torch")
    ours = model64.run_with_hooks(
        tokens, fwd_hooks=[(name, lambda activation, hook: activation**2)]
    )
    theirs = reference.run_with_hooks(
        torch.tensor(tokens).long(), fwd_hooks=[(name, lambda activation, hook: activation**2)]
    )
    assert max_difference(ours, theirs.detach()) < 1e-12


def test_hooks_of_one_name_apply_in_order(model64, tokens):
    def double(activation, hook):
        return 2 * activation

    def resid(*functions):
        hooks = [(RESID, function) for function in functions]
        return np.asarray(
            model64.run_with_cache(tokens, names_filter=RESID, fwd_hooks=hooks)[1][RESID]
        )

    clean = resid()
    np.testing.assert_allclose(resid(double, add(1)), 2 * clean + 1)
    np.testing.assert_allclose(resid(add(1), double), 2 * (clean + 1))
    np.testing.assert_allclose(resid(add(1), add(1), double), 2 * (clean + 2))


def test_a_hook_that_returns_none_only_looks(model64, tokens):
    seen = []
    logits = model64.run_with_hooks(
        tokens,
        fwd_hooks=[(lambda name: "attn.hook_z" in name, lambda z, hook: seen.append((hook, z)))],
    )
    assert np.array_equal(logits, model64(tokens))
    assert [hook.name for hook, _ in seen] == ["blocks.0.attn.hook_z", "blocks.1.attn.hook_z"]
    assert [hook.layer() for hook, _ in seen] == [0, 1]
    assert seen[0][1].shape == (5, 8, 1, 2)


@pytest.mark.parametrize("dtype", ["bfloat16", "int32", "bool"])
def test_a_hook_does_not_change_the_type_of_an_activation(scratch_model, tokens, dtype):
    _, cache = scratch_model.run_with_cache(
        tokens, fwd_hooks=[(lambda name: True, lambda x, hook: x.astype(dtype))]
    )
    assert {activation.dtype.name for activation in cache.values()} == {"float32"}


@pytest.mark.parametrize("returned", ["x", [[1], [1, 2]], object()])
def test_a_hook_that_returns_no_activation_is_refused(scratch_model, tokens, returned):
    kind = type(returned).__name__
    with pytest.raises(
        UserError, match=f"hook function on {RESID} returned a value of type {kind}"
    ):
        scratch_model.run_with_hooks(tokens, fwd_hooks=[(RESID, lambda x, hook: returned)])


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))]
)
@pytest.mark.parametrize("name", ["tutorial", "rotary", "grouped, all hooks", "soft caps", "local"])
def test_a_model_can_be_copied_and_pickled(random_weights, tokens, name, copied):
    cfg = case(name)
    model = HookedTransformer(cfg, params=random_weights(cfg))
    other = copied(model)
    assert other.cfg == cfg
    assert jax.tree.structure(other) == jax.tree.structure(model)
    np.testing.assert_array_equal(other(tokens), model(tokens))
    changed = {n: 2 * weight for n, weight in random_weights(cfg).items()}
    other.load_state_dict(changed)
    np.testing.assert_array_equal(model.state_dict()["embed.W_E"] * 2, changed["embed.W_E"])


def test_hooks_last_for_one_call(model64, tokens):
    clean = model64(tokens)
    model64.run_with_hooks(tokens, fwd_hooks=[(RESID, add(1))])
    assert np.array_equal(model64(tokens), clean)
    assert np.array_equal(model64.run_with_cache(tokens)[0], clean)


def test_the_cache_holds_what_hooks_left_and_what_followed(model64, tokens):
    _, clean = model64.run_with_cache(tokens)
    _, edited = model64.run_with_cache(tokens, fwd_hooks=[(RESID, lambda x, hook: 0 * x)])
    assert np.array_equal(edited["resid_mid", 0], clean["resid_mid", 0])
    assert not np.asarray(edited[RESID]).any()
    assert not np.asarray(edited["resid_pre", 1]).any()


def test_a_query_that_sees_nothing_attends_to_nothing(model64, tokens):
    def blind(scores, hook):
        return scores.at[:, :, 3, :].set(-np.inf)

    with numerics(model64.cfg):
        logits, cache = model64.run_with_cache(
            tokens, fwd_hooks=[("blocks.0.attn.hook_attn_scores", blind)]
        )
    assert not np.asarray(cache["pattern", 0])[:, :, 3].any()
    assert np.isfinite(logits).all()


def test_an_unknown_hook_name_lists_the_near_ones(model64, tokens):
    typo = "blocks.0.attn.hook_patern"
    with pytest.raises(UserError, match=rf"'{typo}'.*did you mean .*{PATTERN}"):
        model64.run_with_hooks(tokens, fwd_hooks=[(typo, add(1))])
    with pytest.raises(UserError, match=r"'blocks\.2\.hook_resid_post'"):
        model64.run_with_cache(tokens, names_filter="blocks.2.hook_resid_post")


@pytest.mark.parametrize("change", [lambda x: x[:, :-1], lambda x: x.sum(), lambda x: x[None]])
def test_a_hook_that_changes_a_shape_is_refused(model64, tokens, change):
    with pytest.raises(
        UserError, match=rf"hook function on {RESID} returned an array of shape .* of \[5, 8, 4\]"
    ):
        model64.run_with_hooks(tokens, fwd_hooks=[(RESID, lambda x, hook: change(x))])


# Under transformations


def test_a_cache_from_jit_equals_an_eager_one(model64, tokens):
    hooks = [(PATTERN, lambda pattern, hook: pattern * 0.5)]
    logits, cache = model64.run_with_cache(tokens, fwd_hooks=hooks)
    with numerics(model64.cfg):
        jitted = jax.jit(lambda model, tokens: model.run_with_cache(tokens, fwd_hooks=hooks))
        jit_logits, jit_cache = jitted(model64, tokens)
    assert isinstance(jit_cache, ActivationCache)
    assert list(jit_cache) == list(cache)
    assert max_difference(logits, jit_logits) < 1e-12
    for name in cache:
        np.testing.assert_allclose(jit_cache[name], cache[name], rtol=0, atol=1e-12, err_msg=name)


def test_vmap_over_stacked_parameters_and_a_hooks_own_parameter(model64, random_weights, tokens):
    cfg = model64.cfg
    several = [random_weights(cfg, seed) for seed in range(3)]
    shifts = np.array([0.0, 0.5, -1.0])

    def run(params, shift):
        model = HookedTransformer(cfg, params=params)
        return model.run_with_cache(
            tokens, names_filter=[RESID, PATTERN], fwd_hooks=[(RESID, add(shift))]
        )

    with numerics(cfg):
        stacked = {name: jnp.stack([w[name] for w in several]) for name in several[0]}
        logits, cache = jax.jit(jax.vmap(run))(stacked, shifts)
        for i, (weights, shift) in enumerate(zip(several, shifts, strict=True)):
            one_logits, one_cache = run(weights, shift)
            assert max_difference(logits[i], one_logits) < 1e-12
            assert max_difference(cache[RESID][i], one_cache[RESID]) < 1e-12
            assert max_difference(cache["pattern", 0][i], one_cache["pattern", 0]) < 1e-12


def test_the_gradient_through_a_hook_is_the_slope(model64, tokens):
    def loss(shift):
        return model64.run_with_hooks(tokens, fwd_hooks=[(RESID, add(shift))], return_type="loss")

    rng = np.random.default_rng(0)
    shift, direction = rng.normal(size=(2, 8, 4))
    step = 1e-6
    with numerics(model64.cfg):
        slope = float((jax.jit(jax.grad(loss))(shift) * direction).sum())
    rise = float(loss(shift + step * direction)) - float(loss(shift - step * direction))
    assert slope == pytest.approx(rise / (2 * step), rel=1e-6)
    assert abs(slope) > 1e-5


def test_the_gradient_with_respect_to_the_model_is_that_of_torch(model64, reference, tokens):
    torch = pytest.importorskip("torch")
    with numerics(model64.cfg):
        grads = jax.grad(lambda model: model(tokens, return_type="loss"))(model64)
    reference.zero_grad()
    reference(torch.tensor(tokens).long(), return_type="loss").backward()
    for name, param in reference.named_parameters():
        difference = max_difference(grads.params[name], param.grad)
        assert difference < 1e-12, name


# Parameters


def test_a_model_may_be_built_from_a_state_dict(model64, tokens):
    model = HookedTransformer(model64.cfg, params=model64.state_dict())
    assert np.array_equal(model(tokens), model64(tokens))
    with numerics(model64.cfg):
        np.testing.assert_allclose(jax.jit(model)(tokens), model64(tokens), rtol=0, atol=1e-12)


def test_a_models_weights_work_as_arrays(model64):
    W_in = model64.blocks[0].mlp.W_in
    array = np.asarray(W_in)
    assert array.shape == W_in.shape == (4, 4)
    assert np.array_equal(array, model64.state_dict()["blocks.0.mlp.W_in"])
    with numerics(model64.cfg):
        np.testing.assert_allclose(np.ones(4) @ W_in, array.sum(0))
        np.testing.assert_allclose(W_in @ np.ones(4), array.sum(1))
        np.testing.assert_allclose(W_in.T[0], array[:, 0])
        np.testing.assert_allclose(W_in + W_in, 2 * array)
        np.testing.assert_allclose(jnp.abs(W_in[...]), np.abs(array))


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_state_dict_goes_round(tutorial, random_weights, changes):
    cfg = tutorial.model.replace(**changes)
    weights = random_weights(cfg)
    model = HookedTransformer(cfg, rngs=nnx.Rngs(0))
    model.load_state_dict(weights)
    state_dict = model.state_dict()
    assert list(state_dict) == list(weights)
    for name, weight in weights.items():
        assert isinstance(state_dict[name], np.ndarray)
        assert np.array_equal(state_dict[name], weight)


def test_loading_takes_effect_casts_and_leaves_buffers_aside(scratch_model, tokens, random_weights):
    wide = random_weights(scratch_model.cfg.replace(dtype="float64"), seed=1)
    before = scratch_model(tokens)
    scratch_model.load_state_dict(wide | {"blocks.0.attn.mask": np.ones((9, 9), bool)})
    assert scratch_model.params["embed.W_E"].dtype == np.float32
    narrow = {name: w.astype(np.float32) for name, w in wide.items()}
    expected = HookedTransformer(scratch_model.cfg, params=narrow)(tokens)
    assert np.array_equal(scratch_model(tokens), expected)
    assert not np.array_equal(scratch_model(tokens), before)


def test_a_load_that_is_not_strict_takes_what_fits_and_says_the_rest(scratch_model, random_weights):
    before = scratch_model.state_dict()
    weights = random_weights(scratch_model.cfg, seed=1)
    some = {"embed.W_E": weights["embed.W_E"], "extra": np.ones(3)}
    keys = scratch_model.load_state_dict(some, strict=False)
    assert keys.unexpected_keys == ["extra"]
    assert keys.missing_keys == [name for name in before if name != "embed.W_E"]
    after = scratch_model.state_dict()
    assert np.array_equal(after.pop("embed.W_E"), weights["embed.W_E"])
    assert all(np.array_equal(weight, before[name]) for name, weight in after.items())
    assert scratch_model.load_state_dict(weights) == ([], [])


def test_jax_arrays_and_params_are_loaded(scratch_model, random_weights):
    weights = random_weights(scratch_model.cfg, seed=1)
    scratch_model.load_state_dict({k: jnp.asarray(w) for k, w in weights.items()})
    assert np.array_equal(scratch_model.params["embed.W_E"], weights["embed.W_E"])
    scratch_model.load_state_dict({k: nnx.Param(jnp.asarray(w)) for k, w in weights.items()})
    assert np.array_equal(scratch_model.params["embed.W_E"], weights["embed.W_E"])


@pytest.mark.parametrize("spoil", ["missing", "unexpected", "shape"])
def test_what_does_not_fit_is_refused_and_nothing_loaded(scratch_model, random_weights, spoil):
    weights = random_weights(scratch_model.cfg, seed=1)
    if spoil == "missing":
        del weights["unembed.b_U"]
    else:
        weights["unembed.b_U" if spoil == "shape" else "unembed.c"] = np.zeros(4)
    before = scratch_model.state_dict()
    with pytest.raises(UserError, match=rf"{spoil}.*unembed|unembed.*{spoil}"):
        scratch_model.load_state_dict(weights)
    after = scratch_model.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_rngs_and_params_exclude_each_other(tutorial, random_weights):
    with pytest.raises(UserError, match=r"either rngs.* or params"):
        HookedTransformer(tutorial.model, rngs=nnx.Rngs(0), params=random_weights(tutorial.model))


def test_without_a_seed_every_model_has_other_weights(tutorial):
    one, other = (HookedTransformer(tutorial.model).state_dict() for _ in range(2))
    assert tutorial.model.seed is None
    assert not np.array_equal(one["embed.W_E"], other["embed.W_E"])
    assert np.array_equal(one["ln_final.w"], other["ln_final.w"])


def test_a_dict_stands_for_a_config(tutorial, random_weights, tokens):
    cfg = tutorial.model
    fields = cfg.to_dict() | {"device": "cpu", "n_heads": -1, "d_head": 4, "attn_scale": -1.0}
    weights = random_weights(cfg.replace(d_head=4))
    model = HookedTransformer(fields, params=weights)
    assert model.cfg == cfg.replace(d_head=4)
    assert np.array_equal(model(tokens), HookedTransformer(model.cfg, params=weights)(tokens))


def test_float64_needs_no_global_flag_and_leaves_it_alone(tutorial, tokens):
    cfg = tutorial.model.replace(dtype="float64")
    before = jax.config.jax_enable_x64
    model = HookedTransformer(cfg, rngs=nnx.Rngs(0))
    logits, cache = model.run_with_cache(tokens, fwd_hooks=[(RESID, add(0.5))])
    loss = model(tokens, return_type="loss")
    model.load_state_dict(model.state_dict())
    assert logits.dtype == loss.dtype == np.float64
    assert {activation.dtype for activation in cache.values()} == {np.dtype(np.float64)}
    assert {w.dtype for w in model.state_dict().values()} == {np.dtype(np.float64)}
    assert jax.config.jax_enable_x64 == before
    assert jnp.zeros(1).dtype == np.float32


def test_float32_stays_float32(scratch_model, tokens):
    logits, cache = scratch_model.run_with_cache(tokens)
    assert {x.dtype for x in (logits, *cache.values())} == {np.dtype(np.float32)}


def test_a_hook_beyond_the_end_of_the_pass_is_refused(model64, tokens):
    with pytest.raises(UserError, match=r"does not compute unembed\.hook_out"):
        model64.run_with_cache(tokens, return_type=None, names_filter="unembed.hook_out")
    assert len(model64.run_with_cache(tokens, return_type=None)[1]) == 38


def test_the_loss_of_tokens_that_are_no_outputs_is_refused(tutorial):
    cfg = tutorial.model.replace(d_vocab_out=4)
    model = HookedTransformer(cfg, rngs=nnx.Rngs(0))
    assert np.isfinite(model(np.array([[4, 3, 2]]), return_type="loss"))
    with pytest.raises(UserError, match=r"d_vocab_out=4.*found 4"):
        model(np.array([[1, 4, 2]]), return_type="loss")


def test_parameters_are_cast_and_must_be_floats(tutorial, random_weights):
    cfg = tutorial.model.replace(dtype="float64")
    narrow = {name: w.astype(np.float32) for name, w in random_weights(cfg).items()}
    assert HookedTransformer(cfg, params=narrow).params["embed.W_E"].dtype == np.float64
    with pytest.raises(UserError, match=r"embed\.W_E must hold floats, not int32"):
        HookedTransformer(cfg, params=narrow | {"embed.W_E": np.zeros((5, 4), np.int32)})


def test_other_arguments_of_a_model_are_refused_in_a_sentence(tutorial):
    with pytest.raises(
        UserError, match="cfg must be a HookedTransformerConfig, or a dict of its fields"
    ):
        HookedTransformer("gpt2", rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match="needs a value for n_layers"):
        HookedTransformer({"d_model": 4}, rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match="params must be a dict of arrays, not list"):
        HookedTransformer(tutorial.model, params=[1, 2])
    with pytest.raises(UserError, match=r"parameter embed\.W_E is not an array of numbers"):
        HookedTransformer(tutorial.model, params={"embed.W_E": "zero"})


def test_rngs_must_be_rngs(tutorial):
    with pytest.raises(UserError, match=r"nnx\.Rngs\(0\)"):
        HookedTransformer(tutorial.model, rngs=jax.random.key(0))


# What people do with a model of TransformerLens


def test_a_model_moves_to_a_device_by_torchs_names(scratch_model, tokens):
    before = scratch_model(tokens)
    assert scratch_model.to("cpu").cpu() is scratch_model
    assert scratch_model.to(jax.devices()[0], print_details=False) is scratch_model
    assert np.array_equal(scratch_model(tokens), before)
    with pytest.raises(UserError, match="JAX sees no device 'cuda:7'"):
        scratch_model.to("cuda:7")
    with pytest.raises(UserError, match="dtype='float64'"):
        scratch_model.to("torch.float64")


def test_weights_are_processed_in_place_as_in_a_copy(random_weights, tokens):
    cfg = case("tutorial").replace(n_ctx=9)
    model = HookedTransformer(cfg, params=random_weights(cfg))
    expected = model.process_weights(center_unembed=False)
    model.add_hook(RESID, add(1.0))
    model.process_weights_(center_unembed=False)
    assert model.cfg == expected.cfg
    assert model.cfg.normalization_type == "LNPre"
    for name, array in expected.params.items():
        assert np.array_equal(model.params[name], array)
    assert list(model.list_hooks()) == [RESID]
    other = HookedTransformer(cfg)
    other.load_and_process_state_dict(random_weights(cfg), center_unembed=False)
    assert max_difference(other(tokens), expected(tokens)) == 0


def test_the_constructor_takes_transformer_lens_arguments(tutorial):
    HookedTransformer(tutorial.model, move_to_device=False, default_padding_side="left")
    with pytest.raises(UserError, match="no tokenizer: give token ids"):
        HookedTransformer(tutorial.model, tokenizer="gpt2")


def test_a_model_of_many_leaves_has_the_parameters_names_as_paths(scratch_model):
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(scratch_model)]
    assert paths == [f"['{name}']" for name in scratch_model.params]
