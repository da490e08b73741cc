from __future__ import annotations

import jax
import numpy as np
import pytest

from jax_revinc import HookedTransformer, HookedTransformerConfig, UserError, numerics
from jax_revinc.analysis.circuits import (
    all_composition_scores,
    direct_path,
    fold_layer_norm,
    mlp_map,
    ov_circuit,
    qk_circuit,
    svd,
)

TWO_HEADS = HookedTransformerConfig(
    n_layers=2, d_model=4, d_head=3, n_heads=2, d_vocab=5, n_ctx=9, dtype="float64"
)


def close(ours, expected):
    ours, expected = np.asarray(ours), np.asarray(expected)
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


@pytest.fixture
def model(random_weights):
    def make(seed=0, **changes):
        cfg = TWO_HEADS.replace(**changes)
        return HookedTransformer(cfg, params=random_weights(cfg, seed))

    return make


@pytest.mark.parametrize("attn_only", [False, True])
def test_folding_norms_changes_no_logit(model, tokens, attn_only):
    original = model(attn_only=attn_only)
    folded = fold_layer_norm(original)
    assert folded.cfg.normalization_type == "LNPre"
    close(folded(tokens), original(tokens))


def test_without_norms_there_is_nothing_to_fold(model):
    for kind in ("LNPre", None):
        original = model(normalization_type=kind)
        assert fold_layer_norm(original) is original


def without_biases(model):
    params = {
        name: param * (not name.split(".")[-1].startswith("b"))
        for name, param in model.state_dict().items()
    }
    return HookedTransformer(model.cfg, params=params)


def test_the_qk_circuit_gives_the_first_layers_attention_scores(model, tokens):
    bare = without_biases(model(normalization_type=None))
    _, cache = bare.run_with_cache(tokens)
    parts = [np.asarray(part)[0] for part in qk_circuit(bare)]
    token_token, token_position, position_token, position_position = parts
    positions = np.arange(tokens.shape[1])
    for row in tokens:
        scores = (
            token_token[:, row[:, None], row]
            + token_position[:, row[:, None], positions]
            + position_token[:, positions[:, None], row]
            + position_position[:, positions[:, None], positions]
        ) / np.sqrt(3)
        (i,) = np.flatnonzero((tokens == row).all(1))
        lower = np.tril(np.ones(scores.shape[1:], bool))
        close(np.asarray(cache["attn_scores", 0])[i][:, lower], scores[:, lower])


def test_with_norms_circuits_lack_only_the_division(model, tokens):
    """Divided by the scales that the norms had, the OV circuit is what a head adds to the logits."""
    original = model()
    tokens_alone = {"pos_embed.W_pos": np.zeros((9, 4))}
    bare = without_biases(original)
    bare.load_state_dict(bare.state_dict() | tokens_alone)
    _, cache = bare.run_with_cache(tokens)
    cache = {name: np.asarray(activation) for name, activation in cache.items()}
    ov_HBKV = np.asarray(ov_circuit(original))[0][:, tokens]
    added_HBKV = ov_HBKV / cache["blocks.0.ln1.hook_scale"] / cache["ln_final.hook_scale"]

    result_HBPM = np.einsum(
        "bphe,hem->hbpm", cache["blocks.0.attn.hook_v"], bare.state_dict()["blocks.0.attn.W_O"]
    )
    centred_HBPM = result_HBPM - result_HBPM.mean(-1, keepdims=True)
    normalized_HBPM = centred_HBPM / cache["ln_final.hook_scale"] * bare.state_dict()["ln_final.w"]
    close(added_HBKV, normalized_HBPM @ bare.state_dict()["unembed.W_U"])


def test_direct_path_and_mlp_map_read_embeddings_alone(model):
    plain = model(normalization_type=None)
    weights = plain.state_dict()
    W_E, W_U = weights["embed.W_E"], weights["unembed.W_U"]
    close(direct_path(plain), W_E @ W_U)
    for layer in range(2):
        W_in, b_in, W_out, b_out = (
            weights[f"blocks.{layer}.mlp.{name}"] for name in ("W_in", "b_in", "W_out", "b_out")
        )
        close(mlp_map(plain)[layer], (np.maximum(W_E @ W_in + b_in, 0) @ W_out + b_out) @ W_U)


def test_a_head_that_reads_what_another_writes_composes(model):
    """Of two writers into orthogonal directions, a later head reads one."""
    weights = {name: 0 * weight for name, weight in model().state_dict().items()}
    weights["blocks.0.attn.W_V"][:, 0, 0] = 1
    weights["blocks.0.attn.W_O"][0, 0, 1] = 1  # head 0 writes direction 1
    weights["blocks.0.attn.W_O"][1, 0, 2] = 1  # head 1 writes direction 2
    for name in ("W_Q", "W_K", "W_V"):
        weights[f"blocks.1.attn.{name}"][:, 1 if name != "W_K" else 2, 0] = 3
    weights["blocks.1.attn.W_O"][:, 0, 3] = 1
    composer = HookedTransformer(TWO_HEADS, params=weights)
    for mode, heads in (("Q", [1, 0]), ("K", [0, 1]), ("V", [1, 0])):
        scores = np.asarray(all_composition_scores(composer, mode))
        close(scores[0, :, 1], np.array([heads, heads]).T.astype(float))
        assert np.nansum(np.abs(scores)) == 2  # nothing else: only later layers read


def test_only_later_layers_compose(model):
    scores = np.asarray(all_composition_scores(model(), "V"))
    for earlier, later in ((0, 0), (1, 0), (1, 1)):
        assert np.all(scores[earlier, :, later] == 0)
    assert np.all(scores[0, :, 1] > 0)


def test_svd_multiplies_back_and_has_the_rank_of_a_head(model):
    thin = model(d_head=2)
    circuit = ov_circuit(thin)
    U, S, V = map(np.asarray, svd(thin, circuit))
    close(U * S[..., None, :] @ V.mT, circuit)
    assert S.dtype == np.float64
    assert np.all(S[..., 2:] < 1e-12 * S.max())
    assert np.all(S[..., 1] > 1e-6)


def test_circuits_of_many_models_at_once(model):
    models = [model(seed) for seed in range(3)]

    def everything(params):
        one = HookedTransformer(TWO_HEADS, params=params)
        return (
            qk_circuit(one),
            ov_circuit(one),
            direct_path(one),
            mlp_map(one),
            all_composition_scores(one, "K"),
            svd(one, ov_circuit(one)).S,
        )

    with numerics(TWO_HEADS):
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(m.params for m in models))
        together = jax.jit(jax.vmap(everything))(stacked)
        one_by_one = [everything(m.params) for m in models]
    jax.tree.map(lambda all_, *each: close(all_, np.stack(each)), together, *one_by_one)


def test_bad_input_is_named(model):
    with pytest.raises(UserError, match=r"unknown mode 'k'; .*; did you mean K"):
        all_composition_scores(model(), "k")
    with pytest.raises(UserError, match="attn_only"):
        mlp_map(model(attn_only=True))
    with pytest.raises(UserError, match=r"a float64 matrix or several .*, not an array of float32"):
        svd(model(), np.zeros((2, 2), np.float32))
