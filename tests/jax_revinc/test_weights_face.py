"""What the model's weights, `utils`, the head detector and the SVD interpreter refuse, and why."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_revinc import (
    FactoredMatrix,
    HookedTransformer,
    HookedTransformerConfig,
    SVDInterpreter,
    UserError,
    utils,
)
from jax_revinc.compilation.numerical_settings import numerics
from jax_revinc.head_detector import detect_head, get_supported_heads

CFG = HookedTransformerConfig(n_layers=2, d_model=6, d_head=3, d_vocab=5, n_ctx=8, dtype="float64")


@pytest.fixture(scope="module")
def model(random_weights):
    return HookedTransformer(CFG, params=random_weights(CFG))


def test_a_gradient_through_products_of_weights(model):
    def size(params):
        return HookedTransformer(CFG, params=params).OV.norm().sum()

    with numerics(CFG):
        gradients = jax.jit(jax.grad(size))(model.params)
        W_V, W_O = model.W_V, model.W_O
        norm = model.OV.norm()
        expected = (W_V @ W_O @ W_O.mT) / norm[..., None, None]
    for layer in range(2):
        np.testing.assert_allclose(gradients[f"blocks.{layer}.attn.W_V"], expected[layer], 1e-10)
    assert not np.any(gradients["embed.W_E"])


def test_weights_of_many_models_at_once(random_weights):
    many = [random_weights(CFG, seed) for seed in range(3)]
    stacked = {name: np.stack([params[name] for params in many]) for name in many[0]}

    def scores(params):
        return HookedTransformer(CFG, params=params).all_composition_scores("K")

    with numerics(CFG):
        together = jax.jit(jax.vmap(scores))(stacked)
        alone = scores(many[1])
    np.testing.assert_allclose(together[1], alone, rtol=1e-10)


def test_parameters_are_factors_as_they_are(model):
    """A weight of a layer is a Flax variable that holds an array."""
    attn = model.blocks[1].attn
    made = FactoredMatrix(attn.W_V, attn.W_O)
    np.testing.assert_array_equal(made.AB, model.OV[1].AB)
    written = model.embed.W_E @ made @ model.unembed.W_U
    expected = utils.to_numpy(model.embed.W_E) @ np.asarray(made.AB) @ np.asarray(model.W_U)
    np.testing.assert_allclose(written.AB, expected, rtol=1e-12)
    assert written.AB.dtype == jnp.float64
    np.testing.assert_array_equal(utils.get_corner(attn.W_Q), model.W_Q[1, :3, :3, :3])


def test_parameters_are_read_by_name_and_set_in_a_new_model(model):
    params = dict(model.named_parameters())
    params["blocks.1.mlp.W_in"] = np.zeros((6, 24))
    other = HookedTransformer(CFG, params=params)
    np.testing.assert_array_equal(other.W_in[0], model.W_in[0])
    assert not np.any(other.W_in[1])
    assert len(list(model.parameters())) == len(params)


MISTAKES = {
    "layer must be at most 2, not 3": lambda m: m.accumulated_bias(3),
    r"mlp_input needs a layer in 0\.\.1, not 2": lambda m: m.accumulated_bias(2, True),
    "unknown mode 'k'": lambda m: m.all_composition_scores("k"),
    "' dog' is text, .* give token ids": lambda m: m.tokens_to_residual_directions(" dog"),
    r"must lie in 0\.\.4 .*; found 5": lambda m: m.tokens_to_residual_directions(5),
    "token ids must be integers": lambda m: m.tokens_to_residual_directions(np.array([0.5])),
    "attention_mask must have the shape of the tokens": lambda m: m.loss_fn(
        jnp.zeros((1, 3, 5)), np.zeros((1, 3), int), np.ones((1, 2))
    ),
    "matrices whose product exists": lambda m: utils.composition_scores(m.OV @ m.W_U, m.OV),
    "unknown vector_type 'QK'": lambda m: SVDInterpreter(m).get_singular_vectors("QK", 0),
    "needs a head_index": lambda m: SVDInterpreter(m).get_singular_vectors("OV", 0),
    "layer_index must be below 2": lambda m: SVDInterpreter(m).get_singular_vectors("w_in", 2),
    "num_vectors must be at most 6": lambda m: SVDInterpreter(m).get_singular_vectors("w_in", 0),
    "detect_head takes token ids": lambda m: detect_head(m, ["a b"], "induction_head"),
    "at least two tokens": lambda m: detect_head(m, [1], "induction_head"),
    "unknown detection_pattern 'induction'": lambda m: detect_head(m, [1, 2], "induction"),
    "unknown error_measure 'max'": lambda m: detect_head(
        m, [1, 2], "induction_head", error_measure="max"
    ),
    r"lower triangular matrix \[2, 2\] .* not an array": lambda m: detect_head(
        m, [1, 2], np.ones((2, 2))
    ),
    "a head must be below 2": lambda m: detect_head(m, [1, 2], "induction_head", [(0, 2)]),
    "a cache holds one sequence": lambda m: detect_head(
        m, [[1, 2], [2, 1]], "induction_head", cache=m.run_with_cache([1, 2])[1]
    ),
    "drawing tokens needs a key": lambda _: utils.sample_logits(jnp.zeros((1, 3))),
    "freq_penalty needs the tokens": lambda _: utils.sample_logits(
        jnp.zeros((1, 3)), freq_penalty=1, key=jax.random.key(0)
    ),
    "top_k must be at least 1": lambda _: utils.sample_logits(
        jnp.zeros((1, 3)), top_k=0, key=jax.random.key(0)
    ),
    "top_p must be above 0 and at most 1": lambda _: utils.sample_logits(
        jnp.zeros((1, 3)), top_p=1.5, key=jax.random.key(0)
    ),
    "has no fan-in": lambda _: utils.calc_fan_in_and_fan_out(np.zeros(())),
    "unknown nonlinearity 'gelu'": lambda _: utils.init_kaiming_normal_(
        np.zeros((2, 2)), nonlinearity="gelu", key=jax.random.key(0)
    ),
    "takes an array or a number, not a dict": lambda _: utils.to_numpy({}),
    "outside jit": lambda _: jax.jit(utils.to_numpy)(1.0),
    "two matrices of one shape": lambda _: utils.check_structure(np.eye(2), np.eye(3)),
    "invalid slice 'all'": lambda _: utils.Slice("all"),
    "max_ctx must be given": lambda _: utils.Slice([1]).indices(),
    "does not exist; choose among 0..2": lambda _: utils.Slice([3]).apply(np.zeros(3)),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(model, message):
    with pytest.raises(UserError, match=message):
        MISTAKES[message](model)


def test_a_float32_model_stays_float32(random_weights):
    """Also beside numpy's integers and floats of 64 bits."""
    cfg = CFG.replace(dtype="float32")
    single = HookedTransformer(cfg, params=random_weights(cfg))
    tokens = np.array([[1, 2, 3]])
    logits = single(tokens)
    assert single.loss_fn(logits, tokens, np.ones((1, 3))).dtype == jnp.float32
    assert (single.QK * np.sqrt(3)).AB.dtype == jnp.float32
    assert detect_head(single, tokens, "previous_token_head").dtype == jnp.float32


def test_where_float64_is_enabled_float32_arrays_stay_float32():
    with jax.enable_x64(True):
        logits, ids = jnp.zeros((1, 3, 5), jnp.float32), jnp.zeros((1, 3), jnp.int64)
        assert utils.lm_cross_entropy_loss(logits, ids).dtype == jnp.float32
        assert jax.jit(utils.lm_cross_entropy_loss)(logits, ids, ids).dtype == jnp.float32
        assert utils.get_cumsum_along_dim(ids, 1).dtype == jnp.int64


def test_draws_follow_the_logits():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.2, 1e-9]]))
    keys = jax.random.split(jax.random.key(1), 2000)
    drawn = jax.jit(jax.vmap(lambda key: utils.sample_logits(logits, key=key)[0]))(keys)
    np.testing.assert_allclose(
        np.bincount(drawn, minlength=4) / 2000, [0.5, 0.3, 0.2, 0], atol=0.04
    )
    of_two = jax.vmap(lambda key: utils.sample_logits(logits, top_k=2, key=key)[0])(keys)
    assert set(np.asarray(of_two).tolist()) == {0, 1}


def test_heads_under_jit(model):
    tokens = np.array([1, 2, 1, 2, 1])
    with numerics(CFG):
        found = jax.jit(lambda ids: detect_head(model, ids, "induction_head"))(tokens)
    np.testing.assert_allclose(found, detect_head(model, tokens, "induction_head"), rtol=1e-12)
    _, cache = model.run_with_cache(tokens, remove_batch_dim=True)
    np.testing.assert_array_equal(
        detect_head(model, tokens, "induction_head", cache=cache),
        detect_head(model, tokens, "induction_head"),
    )


def test_a_pattern_of_other_numbers_is_warned_of(model, caplog):
    detect_head(model, [1, 2], 0.5 * np.eye(2))
    assert "other values than 0 and 1" in caplog.text


def test_the_known_heads_are_printed(capsys):
    get_supported_heads()
    assert "induction_head" in capsys.readouterr().out


def test_checking_a_structure_in_detail(capsys):
    utils.check_structure(np.array([[1, 2], [3, 4]]), np.array([[1, 2], [0, 4]]), verbose=True)
    assert capsys.readouterr().out.splitlines()[-1] == "row mismatch: [0]"
