"""Processed weights are TransformerLens', and the model computes what it did."""

import numpy as np
import pytest
import torch
from model_family import ALONE_AND_COMBINED, BASE, CASES, GROUPED, case
from scipy.special import log_softmax

from jax_revinc import HookedTransformer, HookedTransformerConfig, UserError, numerics
from jax_revinc.compilation.quick_jit import quick_jit
from parity.bridge import to_torch
from revinc.weight_processing import STEPS, obstacles, process_weights
from torch_reference.installed_transformer_lens import WORLD

if WORLD != "3.9":
    pytest.skip("weights are processed as in 3.9", allow_module_level=True)

from transformer_lens.weight_processing import ProcessWeights

TOKENS = np.random.default_rng(0).integers(0, 5, size=(3, 8))
BOUND = 1e-12

WITHOUT_THEIR_SHORTCUTS = {
    "d_mlp is d_model": {"d_mlp": 6},
    "d_vocab_out is d_model": {"d_vocab_out": 6},
    "final RMS": {"final_rms": True},
    "gate without a bias": {"gated_mlp": True},
    "positions after the norm": {"positional_embedding_type": "shortformer"},
    "capped logits": {"output_logits_soft_cap": 1.0},
}
"""Configs of which 3.9 makes another model."""


@pytest.fixture
def model(random_weights):
    """A function from a config to a model with random weights in float64."""
    return lambda cfg: HookedTransformer(cfg, params=random_weights(cfg))


def folds_there(cfg):
    """Whether 3.9 folds norms at all, and right."""
    looks_for_a_norm = cfg.act_fn == "solu" or (
        cfg.act_fn == "solu_ln" and cfg.normalization_type != "LN"
    )
    keeps_a_norm = cfg.positional_embedding_type == "shortformer" or (
        cfg.gated_mlp and cfg.normalization_type == "LN"
    )
    return not (cfg.final_rms or looks_for_a_norm or keeps_a_norm or cfg.d_mlp == cfg.d_model)


def refactors_there(cfg):
    """Whether 3.9 refactors attention; it says "rotary" for a model without positions."""
    return cfg.positional_embedding_type != "none"


def sound(step):
    """The cases for which a step is right in 3.9 too."""
    return [
        name
        for name in CASES
        if not obstacles(case(name))[step]
        and (step not in ("fold_layer_norm", "center_writing_weights") or folds_there(case(name)))
        and (step != "refactor_factored_attn_matrices" or refactors_there(case(name)))
    ]


def log_probs(logits):
    return log_softmax(np.asarray(logits), axis=-1)


def their_step(step, cfg, weights, **options):
    theirs = {name: torch.from_numpy(weight.copy()) for name, weight in weights.items()}
    their_cfg = to_torch(HookedTransformer(cfg, params=weights)).cfg
    is_rms = cfg.normalization_type == "RMS"
    how = {"fold_biases": not is_rms, "center_weights": not is_rms}
    how = how if step == "fold_layer_norm" else {}
    return getattr(ProcessWeights, step)(theirs, cfg=their_cfg, **how | options)


def as_signed(step, weight):
    """A weight; without its signs where singular vectors decide them, which are free to."""
    return np.abs(weight) if step == "refactor_factored_attn_matrices" else weight


@pytest.mark.parametrize("step", STEPS)
def test_every_step_gives_their_weights(model, step):
    assert len(sound(step)) > 20
    for name in sound(step):
        ours = model(case(name))
        processed = STEPS[step](ours.state_dict(), ours.cfg)
        theirs = their_step(step, ours.cfg, ours.state_dict())
        assert list(processed) == list(ours.state_dict())
        assert_same_weights(step, processed, theirs, name)


def assert_same_weights(step, ours, theirs, name):
    for weight, array in ours.items():
        array, expected = as_signed(step, array), as_signed(step, theirs[weight].numpy())
        error = np.abs(array - expected).max()
        assert error <= BOUND * np.abs(array).max(), f"{name}: {weight}"


@pytest.mark.parametrize("options", [{"fold_biases": False}, {"center_weights": False}], ids=str)
def test_norms_are_folded_in_part_as_there(model, options):
    for name in ("act_fn gelu", "attention only"):
        ours = model(case(name))
        folded = ours.fold_layer_norm(ours.state_dict(), **options)
        theirs = their_step("fold_layer_norm", ours.cfg, ours.state_dict(), **options)
        assert_same_weights("fold_layer_norm", folded, theirs, name)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_a_method_of_a_model(model, step):
    """It takes arrays of JAX too, also traced ones, and leaves the model as it is."""
    ours = model(HookedTransformerConfig(**BASE))
    before = ours.state_dict()
    expected = STEPS[step](before, ours.cfg)
    for method in (getattr(ours, step), quick_jit(getattr(ours, step))):
        with numerics(ours.cfg):
            processed = method(ours.params)
        for weight, array in processed.items():
            found, wanted = as_signed(step, np.asarray(array)), as_signed(step, expected[weight])
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11, err_msg=weight)
    for weight, array in ours.state_dict().items():
        np.testing.assert_array_equal(array, before[weight])


def test_refactored_attention_has_orthogonal_factors_and_computes_the_same(model):
    ours = model(HookedTransformerConfig(**BASE | {"positional_embedding_type": "shortformer"}))
    before = np.asarray(ours(TOKENS))
    weights = ours.refactor_factored_attn_matrices(ours.state_dict())
    ours.load_state_dict(weights)
    np.testing.assert_allclose(ours(TOKENS), before, rtol=0, atol=1e-10)
    for layer in range(ours.cfg.n_layers):
        W_O = weights[f"blocks.{layer}.attn.W_O"]
        np.testing.assert_allclose(
            W_O @ W_O.mT, np.stack([np.eye(W_O.shape[1])] * len(W_O)), atol=1e-12
        )
        W_V = weights[f"blocks.{layer}.attn.W_V"]
        gram = W_V.mT @ W_V
        np.testing.assert_allclose(gram, gram * np.eye(W_V.shape[-1]), atol=1e-10)
        assert not np.any(weights[f"blocks.{layer}.attn.b_V"])


def test_all_steps_and_refactoring_are_asked_for_as_there(model):
    ours = model(HookedTransformerConfig(**BASE))
    theirs = to_torch(ours)
    before = log_probs(ours(TOKENS))
    weights = theirs.state_dict()
    theirs.load_and_process_state_dict(weights, True, True, True, True, True)
    ours.process_weights_(True, True, True, True)
    np.testing.assert_allclose(log_probs(ours(TOKENS)), before, rtol=0, atol=1e-10)
    np.testing.assert_allclose(abs(ours.W_V), abs(theirs.W_V.detach().numpy()), atol=1e-5)


@pytest.mark.parametrize("name", ALONE_AND_COMBINED)
def test_the_model_computes_what_it_did(model, name):
    ours = model(case(name))
    processed = ours.process_weights()
    before, after = np.asarray(ours(TOKENS)), np.asarray(processed(TOKENS))
    if obstacles(ours.cfg)["center_unembed"]:
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-10)
    np.testing.assert_allclose(log_probs(after), log_probs(before), rtol=0, atol=1e-10)
    steps_but_one = {"center_unembed": False}
    after = np.asarray(ours.process_weights(**steps_but_one)(TOKENS))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "name", sorted(set(sound("fold_layer_norm")) & set(sound("center_unembed")))
)
def test_all_steps_together_give_their_weights_in_float32(random_weights, name):
    """Theirs go through float32 whatever the model's own type is."""
    cfg = case(name, dtype="float32")
    weights = random_weights(cfg)
    theirs = to_torch(HookedTransformer(cfg, params=weights))
    theirs.process_weights_()
    ours, new_cfg = process_weights(weights, cfg)
    assert HookedTransformerConfig.from_dict(dict(theirs.cfg.to_dict())) == new_cfg
    their_weights = dict(theirs.named_parameters())
    for weight, array in ours.items():
        scale = np.abs(array).max() or 1
        error = np.abs(array - their_weights[weight].detach().numpy()).max()
        assert error <= 32 * np.finfo(np.float32).eps * scale, weight


@pytest.mark.parametrize("name", WITHOUT_THEIR_SHORTCUTS)
def test_where_they_make_another_model_ours_stays_the_same(model, name):
    """If this fails, 3.9 has been mended, and the module's docstring can be shortened."""
    cfg = HookedTransformerConfig(**BASE | WITHOUT_THEIR_SHORTCUTS[name])
    ours = model(cfg)
    theirs = to_torch(ours)
    tokens = torch.from_numpy(TOKENS)
    before = log_probs(theirs(tokens).detach())
    theirs.process_weights_()
    assert np.abs(log_probs(theirs(tokens).detach()) - before).max() > 1e-3
    processed = ours.process_weights()
    np.testing.assert_allclose(log_probs(processed(TOKENS)), before, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("step", "fields", "why"),
    [
        ("fold_layer_norm", {"normalization_type": "LNPre"}, "no weights to fold"),
        ("center_writing_weights", {"normalization_type": "RMS"}, "centre"),
        ("center_writing_weights", {"final_rms": True}, "centre"),
        ("center_unembed", {"output_logits_soft_cap": 1.0}, "output_logits_soft_cap"),
        ("refactor_factored_attn_matrices", {"positional_embedding_type": "rotary"}, "rotary"),
        ("refactor_factored_attn_matrices", {"d_head": 8, "n_key_value_heads": None}, "d_head"),
        ("refactor_factored_attn_matrices", {}, "heads share keys and values"),
    ],
)
def test_a_step_that_would_change_the_model_is_refused(model, step, fields, why):
    ours = model(HookedTransformerConfig(**BASE | GROUPED | fields))
    with pytest.raises(UserError, match=f"{step}.*{why}"):
        STEPS[step](ours.state_dict(), ours.cfg)
