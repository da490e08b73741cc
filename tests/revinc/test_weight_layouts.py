"""What is said about weights in other layouts, and their conversion."""

from __future__ import annotations

import numpy as np
import pytest

from revinc import HookedTransformerConfig, UserError
from revinc.weight_layouts import from_grokking_layout
from revinc.weights import check_state_dict, parameter_shapes

SIZES = {"n_layers": 2, "d_model": 6, "d_head": 3, "n_heads": 4, "d_mlp": 5, "d_vocab": 7}
CFG = HookedTransformerConfig(**SIZES, n_ctx=3, normalization_type=None)


@pytest.fixture
def grokking():
    """Weights in the layout of the grokking checkpoints."""
    block = {
        **dict.fromkeys(("attn.W_Q", "attn.W_K", "attn.W_V"), (4, 3, 6)),
        "attn.W_O": (6, 12),
        "attn.mask": (3, 3),
        "mlp.W_in": (5, 6),
        "mlp.b_in": (5,),
        "mlp.W_out": (6, 5),
        "mlp.b_out": (6,),
    }
    shapes = {"embed.W_E": (6, 7), "pos_embed.W_pos": (3, 6), "unembed.W_U": (6, 7)}
    shapes |= {f"blocks.{i}.{name}": shape for i in range(2) for name, shape in block.items()}
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def refusal(weights, cfg=CFG, strict=True):
    with pytest.raises(UserError) as refused:
        check_state_dict(cfg, weights, strict=strict)
    return str(refused.value)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.", "module._orig_mod."])
def test_a_prefix_is_one_hint_that_removes_it(random_weights, prefix):
    weights = {f"{prefix}{name}": weight for name, weight in random_weights(CFG).items()}
    said = refusal(weights)
    assert "missing" not in said
    way = said[said.index("{") :]
    assert list(check_state_dict(CFG, eval(way, {"weights": weights}))) == list(random_weights(CFG))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("nest", "place"),
    [
        (lambda weights: {"model": weights, "optimizer": {"state": {}}}, "['model']"),
        (lambda weights: {"epoch": 3, "state_dict": weights}, "['state_dict']"),
        (lambda weights: {"a": {"model_state_dict": weights}}, "['a']['model_state_dict']"),
        (lambda weights: {0: {f"module.{k}": w for k, w in weights.items()}}, "[0]"),
    ],
)
def test_a_nested_checkpoint_is_told_the_place_of_its_weights(random_weights, nest, place, strict):
    assert f"give checkpoint{place}" in refusal(nest(random_weights(CFG)), strict=strict)


@pytest.mark.parametrize(("norm", "folded"), [("LN", "LNPre"), ("RMS", "RMSPre")])
@pytest.mark.parametrize("act_fn", ["relu", "solu_ln"])
def test_folded_weights_are_told_their_norm(random_weights, norm, folded, act_fn):
    cfg = CFG.replace(normalization_type=norm, act_fn=act_fn)
    weights = random_weights(cfg.replace(normalization_type=folded))
    said = refusal(weights, cfg)
    assert f"normalization_type='{folded}'" in said
    assert "missing" not in said
    assert check_state_dict(cfg.replace(normalization_type=folded), weights)
    assert "missing blocks.0.ln1.w" in refusal(weights | {"ln_final.w": np.ones(6)}, cfg)


@pytest.mark.parametrize("strict", [True, False])
def test_the_grokking_layout_is_recognised_and_named(grokking, strict):
    said = refusal(grokking, strict=strict)
    assert "grokking checkpoints" in said
    assert "from_grokking_layout(weights)" in said


def test_converted_weights_fit_and_have_no_biases_of_attention(grokking):
    converted = check_state_dict(CFG, from_grokking_layout(grokking))
    assert list(converted) == list(parameter_shapes(CFG))
    for name, weight in converted.items():
        if name.endswith((".b_Q", ".b_K", ".b_V", ".b_O", ".b_U")):
            assert not weight.any(), name
    np.testing.assert_array_equal(converted["embed.W_E"], grokking["embed.W_E"].T)


def test_converted_weights_compute_what_the_original_program_does(grokking):
    one_layer = {name: w for name, w in grokking.items() if "blocks.1" not in name}
    converted = from_grokking_layout(one_layer)
    x = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    there = {name.removeprefix("blocks.0."): weight for name, weight in one_layer.items()}
    here = {name.removeprefix("blocks.0."): weight for name, weight in converted.items()}
    for letter in "QKV":
        np.testing.assert_allclose(
            np.einsum("ihd,pd->pih", there[f"attn.W_{letter}"], x),
            np.einsum("pd,idh->pih", x, here[f"attn.W_{letter}"]),
            atol=1e-5,
        )
    z = np.random.default_rng(2).normal(size=(3, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(
        z.reshape(3, 12) @ there["attn.W_O"].T,
        np.einsum("pih,ihd->pd", z, here["attn.W_O"]),
        atol=1e-5,
    )
    hidden = np.maximum(there["mlp.W_in"] @ x.T, 0).T
    np.testing.assert_allclose(np.maximum(x @ here["mlp.W_in"], 0), hidden, atol=1e-5)
    np.testing.assert_allclose(hidden @ here["mlp.W_out"], hidden @ there["mlp.W_out"].T, atol=1e-5)


def test_only_the_grokking_layout_is_converted(grokking, random_weights):
    with pytest.raises(UserError, match="not in the layout of the grokking checkpoints"):
        from_grokking_layout(random_weights(CFG))
    with pytest.raises(UserError, match=r"give checkpoint\['model'\]"):
        from_grokking_layout({"model": grokking})
    with pytest.raises(UserError, match=r"names start with 'module\.'"):
        from_grokking_layout({f"module.{name}": weight for name, weight in grokking.items()})
    with pytest.raises(UserError, match="by name, not be a list"):
        from_grokking_layout([1])
