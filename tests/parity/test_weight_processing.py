"""Processed weights are TransformerLens', and the model computes what it did."""

import numpy as np
import pytest
import torch
from model_family import BASE, CASES, GROUPED, case
from scipy.special import log_softmax

from jax_revinc import HookedTransformer, HookedTransformerConfig, UserError
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


def sound(step):
    """The cases for which a step is right in 3.9 too."""
    return [
        name
        for name in CASES
        if not obstacles(case(name))[step]
        and (step not in ("fold_layer_norm", "center_writing_weights") or folds_there(case(name)))
    ]


def log_probs(logits):
    return log_softmax(np.asarray(logits), axis=-1)


def their_step(step, cfg, weights):
    theirs = {name: torch.from_numpy(weight.copy()) for name, weight in weights.items()}
    their_cfg = to_torch(HookedTransformer(cfg, params=weights)).cfg
    is_rms = cfg.normalization_type == "RMS"
    how = {"fold_biases": not is_rms, "center_weights": not is_rms}
    how = how if step == "fold_layer_norm" else {}
    return getattr(ProcessWeights, step)(theirs, cfg=their_cfg, **how)


@pytest.mark.parametrize("step", STEPS)
def test_every_step_gives_their_weights(model, step):
    assert len(sound(step)) > 20
    for name in sound(step):
        ours = model(case(name))
        processed = STEPS[step](ours.state_dict(), ours.cfg)
        theirs = their_step(step, ours.cfg, ours.state_dict())
        assert list(processed) == list(ours.state_dict())
        for weight, array in processed.items():
            scale = np.abs(array).max()
            error = np.abs(array - theirs[weight].numpy()).max()
            assert error <= BOUND * scale, f"{name}: {weight}"


@pytest.mark.parametrize("name", CASES)
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
    ],
)
def test_a_step_that_would_change_the_model_is_refused(model, step, fields, why):
    ours = model(HookedTransformerConfig(**BASE | GROUPED | fields))
    with pytest.raises(UserError, match=f"{step}.*{why}"):
        STEPS[step](ours.state_dict(), ours.cfg)
