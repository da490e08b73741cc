"""Contributions add up to what they claim to split, under jit, vmap and grad too."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_revinc import HookedTransformer, HookedTransformerConfig, UserError, numerics
from jax_revinc.analysis import attribution
from jax_revinc.analysis.attribution import (
    accumulated_resid,
    apply_ln_to_stack,
    attributed_components,
    decompose_resid,
    get_full_resid_decomposition,
    logit_attribution,
    logit_attrs,
    logit_lens,
    stack_head_results,
    stack_neuron_results,
)

SHAPE = {"d_model": 4, "d_head": 2, "d_vocab": 5, "n_ctx": 9, "dtype": "float64"}
CONFIGS = {
    "LN, two heads": {"n_layers": 2, "n_heads": 2},
    "LNPre": {"n_layers": 1, "normalization_type": "LNPre"},
    "no norm, other outputs": {"n_layers": 2, "normalization_type": None, "d_vocab_out": 4},
    "attention only": {"n_layers": 2, "attn_only": True},
}
PREDICTED = (5, 6, 7, 8)


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS, scope="module")
def model(request, random_weights):
    cfg = HookedTransformerConfig(**SHAPE, **request.param)
    return HookedTransformer(cfg, params=random_weights(cfg))


@pytest.fixture(scope="module")
def sequences(tutorial):
    return tutorial.task.sequences()[3::56]


@pytest.fixture(scope="module")
def cache(model, sequences):
    return model.run_with_cache(sequences[:, :-1])[1]


@pytest.fixture(scope="module")
def tutorial_cache(model64, sequences):
    return model64.run_with_cache(sequences[:, :-1])[1]


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def total(stack):
    return np.asarray(stack).sum(0)


def logit_differences(logits, sequences, among):
    """The right token's logit minus the mean of the others' in `among`, one by one."""
    differences = np.zeros((len(sequences), len(PREDICTED)))
    for example, tokens in enumerate(sequences):
        for i, position in enumerate(PREDICTED):
            row, right = np.asarray(logits)[example, position - 1], tokens[position]
            differences[example, i] = row[right] - np.mean([row[j] for j in among if j != right])
    return differences


def test_contributions_add_up_to_the_logit_difference(model, sequences):
    logits = model(sequences[:, :-1])
    for among in (None, (0, 1, 2, 3), (2, 0, 2)):
        labels, contributions = logit_attribution(model, sequences, PREDICTED, among)
        compared = range(model.cfg.d_vocab_out) if among is None else {*among}
        assert contributions.shape == (len(labels), len(sequences), 4)
        assert contributions.dtype == np.float64
        close(total(contributions), logit_differences(logits, sequences, compared))


def test_components_are_named_in_execution_order(sequences, random_weights):
    cfg = HookedTransformerConfig(**SHAPE, n_layers=2, n_heads=2)
    labels, _ = logit_attribution(
        HookedTransformer(cfg, params=random_weights(cfg)), sequences, PREDICTED
    )
    layers = [f"L{n}H0 L{n}H1 {n}_b_O {n}_mlp_out" for n in (0, 1)]
    assert labels == ["embed", "pos_embed", *" ".join(layers).split(), "b_U"]


@pytest.mark.parametrize(
    ("label", "parameter"),
    [("L1H0", "blocks.1.attn.W_O"), ("1_b_O", "blocks.1.attn.b_O"), ("b_U", "unembed.b_U")],
)
def test_a_contribution_stands_at_its_label(model64, sequences, label, parameter):
    """Without its weight a component adds nothing; what comes before it stays."""
    params = model64.params | {parameter: jnp.zeros_like(model64.params[parameter])}
    if label == "b_U":
        params["ln_final.b"] = jnp.zeros_like(params["ln_final.b"])
    labels, before = logit_attribution(model64, sequences, PREDICTED)
    _, after = logit_attribution(
        HookedTransformer(model64.cfg, params=params), sequences, PREDICTED
    )
    vanished = [
        name
        for name, here, there in zip(labels, before, after, strict=True)
        if np.abs(here).max() > 0 and np.abs(there).max() == 0
    ]
    assert vanished == [label]


def test_a_population_is_attributed_in_one_call(model64, sequences, random_weights):
    cfg = model64.cfg
    runs = [random_weights(cfg, seed) for seed in range(3)]

    def contributions(params):
        return logit_attribution(HookedTransformer(cfg, params=params), sequences, PREDICTED)[1]

    with numerics(cfg):
        stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *runs)
        together = jax.vmap(contributions)(stacked)
        _, slope = jax.jvp(lambda params: contributions(params).sum(), (runs[0],), (runs[1],))
    close(together, np.stack([contributions(params) for params in runs]))
    step = 1e-6
    ahead, behind = (
        {name: weight + sign * runs[1][name] for name, weight in runs[0].items()}
        for sign in (step, -step)
    )
    difference = np.asarray(contributions(ahead)) - np.asarray(contributions(behind))
    assert float(slope) == pytest.approx(difference.sum() / (2 * step), rel=1e-5)


def test_stacks_work_under_vmap(tutorial, sequences, random_weights):
    cfg = tutorial.model.replace(dtype="float64")
    runs = [random_weights(cfg, seed) for seed in range(3)]

    def everything(params):
        model = HookedTransformer(cfg, params=params)
        _, cache = model.run_with_cache(sequences[:, :-1])
        stack = get_full_resid_decomposition(model, cache, pos_slice=-1)
        return stack, logit_attrs(model, cache, stack, 2, pos_slice=-1), logit_lens(model, cache)

    with numerics(cfg):
        stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *runs)
        together = jax.jit(jax.vmap(everything))(stacked)
    for index, params in enumerate(runs):
        for joint, alone in zip(together, everything(params), strict=True):
            close(joint[index], np.asarray(alone))


def test_every_decomposition_adds_up_to_the_stream(model, cache):
    with_mlps = not model.cfg.attn_only
    for layer in (None, *range(1, model.cfg.n_layers + 1)):
        resid = cache["resid_post", -1 if layer is None else layer - 1]
        close(total(decompose_resid(model, cache, layer)), resid)
        close(total(stack_head_results(model, cache, layer, incl_remainder=True)), resid)
        close(total(get_full_resid_decomposition(model, cache, layer)), resid)
        close(total(get_full_resid_decomposition(model, cache, layer, expand_neurons=False)), resid)
        if with_mlps:
            close(total(stack_neuron_results(model, cache, layer, incl_remainder=True)), resid)
    if with_mlps:
        close(total(decompose_resid(model, cache, 0, mlp_input=True)), cache["resid_mid", 0])
        close(
            total(get_full_resid_decomposition(model, cache, 0, mlp_input=True)),
            cache["resid_mid", 0],
        )
    close(total(stack_head_results(model, cache, 0, incl_remainder=True)), cache["resid_pre", 0])


def test_the_input_of_a_parallel_mlp_is_split_without_its_blocks_attention(
    sequences, random_weights
):
    cfg = HookedTransformerConfig(**SHAPE, n_layers=2, parallel_attn_mlp=True)
    model = HookedTransformer(cfg, params=random_weights(cfg))
    _, cache = model.run_with_cache(sequences[:, :-1])
    for layer in (0, 1):
        close(total(decompose_resid(model, cache, layer, True)), cache["resid_pre", layer])
        stack = decompose_resid(model, cache, layer, True, apply_ln=True)
        close(total(stack), cache["normalized", layer, "ln2"])


def test_indices_may_be_of_any_integer_type(model64, tutorial_cache, sequences):
    expected, got = (
        decompose_resid(model64, tutorial_cache, layer, pos_slice=position)
        for layer, position in ((1, 5), (np.int64(1), jnp.int32(5)))
    )
    np.testing.assert_array_equal(got, expected)
    _, expected = logit_attribution(model64, sequences, PREDICTED)
    for predicted in (list(PREDICTED), np.array(PREDICTED), range(5, 9)):
        _, got = logit_attribution(model64, sequences, predicted)
        np.testing.assert_array_equal(got, expected)


def test_scaled_components_add_up_to_the_normalized_stream(model, cache):
    stack = decompose_resid(model, cache, apply_ln=True)
    has_norm = model.cfg.normalization_type is not None
    close(total(stack), cache["normalized"] if has_norm else cache["resid_post", -1])
    if has_norm and not model.cfg.attn_only:
        stack = decompose_resid(model, cache, 0, mlp_input=True, apply_ln=True)
        close(total(stack), cache["normalized", 0, "ln2"])


def test_the_logit_lens_ends_at_the_logits(model, cache, sequences):
    logits, labels = logit_lens(model, cache, return_labels=True)
    assert labels == [f"{n}_pre" for n in range(model.cfg.n_layers)] + ["final_post"]
    close(logits[-1], np.asarray(model(sequences[:, :-1])))
    first = model.run_with_hooks(
        sequences[:, :-1],
        fwd_hooks=[
            (lambda name: name.endswith(("hook_attn_out", "hook_mlp_out")), lambda x, hook: 0 * x)
        ],
    )
    close(logits[0], np.asarray(first))


def test_the_logit_lens_caps_logits_as_the_model_does(sequences, random_weights):
    cfg = HookedTransformerConfig(**SHAPE, n_layers=2, output_logits_soft_cap=0.8)
    model = HookedTransformer(cfg, params=random_weights(cfg))
    logits, cache = model.run_with_cache(sequences[:, :-1])
    lens = logit_lens(model, cache)
    close(lens[-1], np.asarray(logits))
    assert np.abs(lens).max() <= 0.8


def test_without_gain_it_is_the_logit_attribution_of_transformer_lens(sequences, random_weights):
    cfg = HookedTransformerConfig(**SHAPE, **CONFIGS["LNPre"])
    model = HookedTransformer(cfg, params=random_weights(cfg))
    _, cache = model.run_with_cache(sequences[:, :-1])
    rows = [position - 1 for position in PREDICTED]
    stack, labels = decompose_resid(model, cache, pos_slice=rows, return_labels=True)
    right = sequences[:, PREDICTED]
    pairs = [
        np.asarray(logit_attrs(model, cache, stack, right, np.full_like(right, wrong), rows))
        for wrong in range(5)
    ]
    ours, contributions = logit_attribution(model, sequences, PREDICTED)
    for label in ("embed", "pos_embed", "0_mlp_out"):
        # The right token paired with itself adds nothing, so the mean is over the other four.
        close(contributions[ours.index(label)], sum(pairs)[labels.index(label)] / 4)


@pytest.mark.parametrize(
    ("pos_slice", "kept"),
    [
        (None, slice(None)),
        (2, 2),
        (-1, -1),
        (np.int64(3), 3),
        ((3,), slice(3)),
        ((1, 7, 2), slice(1, 7, 2)),
        (slice(5, None), slice(5, None)),
        ([4, 1, 6], [4, 1, 6]),
        (np.array([0, 7, -2]), [0, 7, -2]),
    ],
)
def test_positions_are_cut_out(model64, tutorial_cache, pos_slice, kept):
    whole = decompose_resid(model64, tutorial_cache, apply_ln=True)
    cut = decompose_resid(model64, tutorial_cache, apply_ln=True, pos_slice=pos_slice)
    close(cut, np.asarray(whole)[:, :, kept])


def test_a_cache_without_batch_gives_stacks_without_batch(model64, tutorial_cache, sequences):
    _, alone = model64.run_with_cache(sequences[:1, :-1], remove_batch_dim=True)
    with numerics(model64.cfg):
        indexed = jax.tree.map(lambda activation: activation[0], tutorial_cache)
    with_batch = get_full_resid_decomposition(model64, tutorial_cache, apply_ln=True)
    for cache in (alone, indexed):
        stack = get_full_resid_decomposition(model64, cache, apply_ln=True)
        close(stack, np.asarray(with_batch)[:, 0])


def test_one_program_serves_every_model_of_a_config(tutorial, sequences, random_weights):
    before = attribution._logit_attribution._cache_size()
    for seed in range(3):
        model = HookedTransformer(tutorial.model, params=random_weights(tutorial.model, seed))
        for among in (None, tutorial.task.answers):
            _, contributions = logit_attribution(model, sequences, PREDICTED, among)
            assert contributions.dtype == np.float32
    assert attribution._logit_attribution._cache_size() == before + 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, c, s: decompose_resid(m, c, 3), "layer 3 does not exist; choose one of 0..2"),
        (lambda m, c, s: decompose_resid(m, c, -2), "layer -2 does not exist"),
        (lambda m, c, s: decompose_resid(m, c, mode="heads"), "unknown mode 'heads'"),
        (lambda m, c, s: decompose_resid(m, c, mlp_input=True), "the unembedding has no MLP"),
        (lambda m, c, s: decompose_resid(m, c, 0, incl_embeds=False), "before layer 0"),
        (lambda m, c, s: decompose_resid(m, c, pos_slice=8), "position 8 does not exist"),
        (lambda m, c, s: decompose_resid(m, c, pos_slice=[1, 9]), "choose among 0..7"),
        (lambda m, c, s: decompose_resid(m, c, pos_slice="last"), "invalid slice 'last'"),
        (lambda m, c, s: decompose_resid(m, c, pos_slice=()), r"invalid slice \(\)"),
        (lambda m, c, s: stack_neuron_results(m, c, 1, None, 4), r"neuron \[4\] does not exist"),
        (
            lambda m, c, s: apply_ln_to_stack(m, c, c["resid_pre", 0][None], 0, recompute_ln=True),
            "the final norm, .*, not layer 0",
        ),
        (
            lambda m, c, s: apply_ln_to_stack(m, c, c["resid_pre", 0][None, :, 3]),
            "give the pos_slice",
        ),
        (lambda m, c, s: logit_attrs(m, c, c["resid_pre", 0][None], 5), "found 5"),
        (
            lambda m, c, s: logit_attrs(m, c, c["resid_pre", 0][None], s[:, 5]),
            r"tokens of shape \[5\] do not fit residual_stack, which has shape \[1, 5, 8\]",
        ),
        (
            lambda m, c, s: logit_attrs(m, c, c["resid_pre", 0][None], 1, s[:, :-1]),
            "must have the same shape",
        ),
        (lambda m, c, s: decompose_resid(m, c, 0.5), "layer must be an integer, not 0.5"),
        (lambda m, c, s: decompose_resid(m, c, True), "layer must be an integer, not True"),
        (lambda m, c, s: decompose_resid(m, c, pos_slice=1.5), "invalid slice 1.5"),
        (lambda m, c, s: decompose_resid(m, c, pos_slice=True), "invalid slice True"),
        (lambda m, c, s: decompose_resid(m, c, pos_slice=(0, 3, 0)), "invalid slice"),
        (lambda m, c, s: logit_attrs(m, c, c["resid_pre", 0][None], 1.0), "integers, not float64"),
        (lambda m, c, s: logit_attribution(m, s, (0, 5)), r"in 1..8, not \(0, 5\)"),
        (lambda m, c, s: logit_attribution(m, s, (9,)), "in 1..8"),
        (lambda m, c, s: logit_attribution(m, s, ()), "in 1..8"),
        (lambda m, c, s: logit_attribution(m, s, (5.5,)), "predicted must be an integer, not 5.5"),
        (lambda m, c, s: logit_attribution(m, s, 5), "predicted must be a tuple"),
        (lambda m, c, s: logit_attribution(m, s, (5,), (1, 2.5)), "among must be an integer"),
        (lambda m, c, s: logit_attribution(m, s, (5,), (2, 2)), "at least two different token ids"),
        (lambda m, c, s: logit_attribution(m, s, (5,), (2, 9)), "found 9"),
        (lambda m, c, s: logit_attribution(m, s + 1, (5,)), "found 5"),
        (lambda m, c, s: logit_attribution(m, s[None], (5,)), "must have shape"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(model64, tutorial_cache, sequences, call, message):
    with pytest.raises(UserError, match=message):
        call(model64, tutorial_cache, sequences)


def test_before_the_first_layer_there_are_no_heads_and_neurons(model64, tutorial_cache):
    for function in (stack_head_results, stack_neuron_results):
        stack, labels = function(model64, tutorial_cache, 0, return_labels=True, pos_slice=(1, 4))
        assert (stack.shape, labels) == ((0, 5, 3, 4), [])


def test_an_attention_only_model_has_no_mlps(sequences, random_weights):
    cfg = HookedTransformerConfig(**SHAPE, n_layers=1, attn_only=True)
    model = HookedTransformer(cfg, params=random_weights(cfg))
    _, cache = model.run_with_cache(sequences[:, :-1])
    with pytest.raises(UserError, match="no neurons"):
        stack_neuron_results(model, cache, 1)
    with pytest.raises(UserError, match="incl_mid asks for the residual stream between attention"):
        accumulated_resid(model, cache, incl_mid=True)
    with pytest.raises(UserError, match="an attention-only model has no MLP"):
        decompose_resid(model, cache, 0, mlp_input=True)


def test_the_components_are_known_without_a_forward_pass(model, sequences):
    labels, _ = logit_attribution(model, sequences, PREDICTED)
    assert tuple(labels) == attributed_components(model.cfg)
