"""Stacks, labels and logit attributions are those of TransformerLens 3.9's ActivationCache."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch
import transformer_lens

from jax_revinc import ActivationCache, HookedTransformer, HookedTransformerConfig, numerics
from jax_revinc.analysis import attribution
from jax_revinc.slices import Slice
from parity import to_torch
from torch_reference.installed_transformer_lens import WORLD

pytestmark = pytest.mark.skipif(WORLD != "3.9", reason="ActivationCache as 3.9 has it")

SHAPE = {"d_model": 4, "d_head": 2, "d_vocab": 5, "n_ctx": 9, "dtype": "float64"}
CONFIGS = {
    "tutorial": {"n_layers": 2, "n_heads": 1, "d_mlp": 4},
    "two heads, gelu": {"n_layers": 2, "n_heads": 2, "act_fn": "gelu"},
    "attention only": {"n_layers": 3, "attn_only": True},
    "LNPre, large eps": {"n_layers": 1, "normalization_type": "LNPre", "eps": 0.5},
    "no norm, other outputs": {"n_layers": 2, "normalization_type": None, "d_vocab_out": 3},
}
OF_METHODS = {
    "LN": {"n_layers": 2, "n_heads": 2, "d_mlp": 3},
    "RMS, grouped queries": {
        "n_layers": 2,
        "n_heads": 4,
        "n_key_value_heads": 2,
        "normalization_type": "RMS",
        "d_mlp": 5,
    },
    "attention only, no norm": {"n_layers": 2, "attn_only": True, "normalization_type": None},
    "LNPre": {"n_layers": 2, "normalization_type": "LNPre", "d_mlp": 3},
    "parallel, rotary": {
        "n_layers": 2,
        "n_heads": 2,
        "parallel_attn_mlp": True,
        "positional_embedding_type": "rotary",
        "d_mlp": 3,
    },
    "bidirectional, other outputs": {
        "n_layers": 2,
        "attention_dir": "bidirectional",
        "d_vocab_out": 3,
        "d_mlp": 3,
    },
}
OF_ALL = [
    "cache.decompose_resid(apply_ln=True, pos_slice=-1)",
    "cache.decompose_resid(1, mode='attn', incl_embeds=False)",
    "cache.accumulated_resid(apply_ln=True, pos_slice=(2, 6))",
    "cache.accumulated_resid(1, apply_ln=True)",
    "cache.stack_head_results()",
    "cache.stack_head_results(0)",
    "cache.stack_head_results(2, incl_remainder=True, pos_slice=Slice([1, -1]), apply_ln=True)",
    "cache.compute_head_results() or cache['result', -1]",
    "cache.get_full_resid_decomposition(expand_neurons=False)",
    "cache.get_full_resid_decomposition(expand_neurons=False, apply_ln=True, pos_slice=3)",
    "cache.get_full_resid_decomposition(expand_neurons=False, project_output_onto=W)",
    "cache.get_full_resid_decomposition("
    "expand_neurons=False, project_output_onto=w, apply_ln=True, pos_slice=(1, 4))",
    "cache.stack_activation('pattern')",
    "cache.stack_activation('resid_pre', 1)",
    "cache.stack_activation('k', -1, 'attn')",
    "cache.apply_ln_to_stack(cache['resid_post', -1], -1)",
    "cache.apply_ln_to_stack(cache['resid_post', -1][:, -1], pos_slice=-1)",
    "cache.apply_ln_to_stack(cache.decompose_resid(), batch_slice=[2, 0])",
    "cache.apply_ln_to_stack(cache.decompose_resid(1), 1, batch_slice=1)",
    "cache.apply_ln_to_stack(cache.decompose_resid()[:, 1], batch_slice=1, has_batch_dim=False)",
    "cache.apply_ln_to_stack(cache.decompose_resid(pos_slice=2), None, False, 2, (1, 3))",
    "cache.logit_attrs(cache.decompose_resid(), 1)",
    "cache.logit_attrs(cache.decompose_resid(), tokens % 3, (tokens + 1) % 3)",
    "cache.logit_attrs(cache.decompose_resid(pos_slice=-1), 0, 2, pos_slice=-1, batch_slice=[0, 2])",
    "cache.logit_attrs("
    "cache.stack_head_results(pos_slice=4), tokens[:, 0] % 3, pos_slice=4, has_batch_dim=True)",
    "cache.apply_slice_to_batch_dim(1).decompose_resid(apply_ln=True)",
    "cache.apply_slice_to_batch_dim([2, 0]).stack_head_results(1, apply_ln=True)",
    "cache.apply_slice_to_batch_dim((1, 2)).remove_batch_dim()['z', 0]",
    "cache.apply_slice_to_batch_dim((1, 2)).remove_batch_dim().accumulated_resid(apply_ln=True)",
    "cache.apply_slice_to_batch_dim(0).get_full_resid_decomposition(expand_neurons=False)",
    "cache.to('cpu')['normalized', 0, 'ln1'] if 'blocks.0.ln1.hook_scale' in cache else cache['embed']",
]
OF_MLPS = [
    "cache.stack_neuron_results(2)",
    "cache.stack_neuron_results(0)",
    "cache.stack_neuron_results(-1, -1, (1, 3), incl_remainder=True, apply_ln=True)",
    "cache.stack_neuron_results(1, project_output_onto=W)",
    "cache.stack_neuron_results(2, neuron_slice=[2, 0], project_output_onto=w, apply_ln=True)",
    "cache.stack_neuron_results(2, None, None, False, True, True, W)",
    "cache.stack_neuron_results(1, incl_remainder=True, project_output_onto=w)",
    "cache.get_neuron_results(1)",
    "cache.get_neuron_results(0, 2, 3)",
    "cache.get_neuron_results(0, [0, 2], (2, 5), w)",
    "cache.get_neuron_results(1, project_output_onto=W)",
    "cache.get_full_resid_decomposition(1)",
    "cache.get_full_resid_decomposition(apply_ln=True, project_output_onto=w)",
    "cache.get_full_resid_decomposition(2, False, True, True, (1, 3), False, W)",
    "cache.apply_slice_to_batch_dim(2).stack_neuron_results(1, apply_ln=True)",
]
UNDER_JIT = [
    *OF_ALL[:3],
    *OF_ALL[6:8],
    OF_ALL[12],
    *OF_ALL[17:19],
    OF_ALL[22],
    OF_ALL[26],
    OF_ALL[28],
]
STACKS = (
    "decompose_resid",
    "accumulated_resid",
    "stack_head_results",
    "get_full_resid_decomposition",
)
SLICES = {"one": 5, "last": -1, "slice": (2, 7, 2), "list": [6, 1, -5]}


class Pair:
    """A model and its cache on both sides.

    TransformerLens' `accumulated_bias` adds up in torch's default type, and asks attention-only models for
    their MLPs unless told otherwise: so the tests make that type float64 and tell it.
    """

    def __init__(self, model, tokens):
        self.cfg = model.cfg
        self.model, self.theirs = model, to_torch(model)
        _, self.cache = model.run_with_cache(tokens)
        with torch.no_grad():
            _, self.their_cache = self.theirs.run_with_cache(torch.tensor(tokens, dtype=torch.long))

    def agree(self, name, *args, **kwargs):
        """Ask both sides for a labelled stack, compare, and return both."""
        with torch.no_grad():
            theirs, their_labels = getattr(self.their_cache, name)(
                *args, **kwargs, return_labels=True
            )
        function = getattr(attribution, name)
        ours, labels = function(self.model, self.cache, *args, **kwargs, return_labels=True)
        assert labels == their_labels
        assert_close(ours, theirs, f"{name} {args} {kwargs}")
        return ours, theirs


def assert_close(ours, theirs, what):
    ours, theirs = np.asarray(ours), theirs.numpy()
    assert ours.shape == theirs.shape, what
    assert ours.dtype == np.float64
    assert np.abs(ours - theirs).max() <= 1e-10 * np.abs(theirs).max(), what


@pytest.fixture(scope="module")
def trained(short_run, tokens):
    cfg = short_run.config.model.replace(dtype="float64")
    return Pair(HookedTransformer(cfg, params=short_run.model().state_dict()), tokens)


@pytest.fixture(scope="module", params=[*CONFIGS, "trained"])
def pair(request, random_weights, tokens):
    if request.param == "trained":
        return request.getfixturevalue("trained")
    cfg = HookedTransformerConfig(**SHAPE, **CONFIGS[request.param])
    return Pair(HookedTransformer(cfg, params=random_weights(cfg)), tokens)


@pytest.fixture(autouse=True)
def wide_torch():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def layers_and_inputs(cfg):
    """Every layer that TransformerLens may be asked for, and whether the MLP's input is meant."""
    plain = [(layer, False) for layer in range(cfg.n_layers + 1)]
    return plain + [(layer, True) for layer in range(0 if cfg.attn_only else cfg.n_layers)]


@pytest.mark.parametrize("apply_ln", [False, True])
def test_decompositions(pair, apply_ln):
    for layer, mlp_input in layers_and_inputs(pair.cfg):
        asked = {"layer": layer, "mlp_input": mlp_input, "apply_ln": apply_ln}
        for mode in ("all", "attn", "mlp"):
            pair.agree("decompose_resid", mode=mode, **asked)
        for expand_neurons in (False,) if pair.cfg.attn_only else (False, True):
            pair.agree("get_full_resid_decomposition", expand_neurons=expand_neurons, **asked)
        for incl_mid in (False,) if pair.cfg.attn_only else (False, True):
            pair.agree("accumulated_resid", incl_mid=incl_mid, **asked)
    pair.agree("decompose_resid", mode="attn", incl_embeds=False, apply_ln=apply_ln)


@pytest.mark.parametrize("apply_ln", [False, True])
def test_heads_and_neurons(pair, apply_ln):
    for layer in range(1, pair.cfg.n_layers + 1):
        for incl_remainder in (False, True):
            asked = {"layer": layer, "incl_remainder": incl_remainder, "apply_ln": apply_ln}
            pair.agree("stack_head_results", **asked)
            for neuron_slice in () if pair.cfg.attn_only else (None, (1, 3), [3, 0]):
                pair.agree("stack_neuron_results", neuron_slice=neuron_slice, **asked)


@pytest.mark.parametrize("pos_slice", SLICES.values(), ids=SLICES)
def test_positions(trained, pos_slice):
    for name in STACKS:
        trained.agree(name, pos_slice=pos_slice, apply_ln=True)
    trained.agree("stack_neuron_results", 1, pos_slice=pos_slice, apply_ln=True)
    trained.agree("accumulated_resid", 1, pos_slice=pos_slice, apply_ln=True)


def test_defaults(pair):
    for name in STACKS[: -1 if pair.cfg.attn_only else None]:
        stack, _ = pair.agree(name)
        pair.agree(name, layer=None)
        pair.agree(name, layer=-1)
        unlabelled = getattr(attribution, name)(pair.model, pair.cache)
        np.testing.assert_array_equal(unlabelled, stack)


def test_normalised_stacks(pair):
    ours, theirs = pair.agree("decompose_resid")
    for layer, mlp_input in layers_and_inputs(pair.cfg):
        assert_close(
            attribution.apply_ln_to_stack(pair.model, pair.cache, ours, layer, mlp_input),
            pair.their_cache.apply_ln_to_stack(theirs, layer, mlp_input),
            f"layer {layer}, mlp_input {mlp_input}",
        )
    with torch.no_grad():
        anew = pair.their_cache.apply_ln_to_stack(theirs, recompute_ln=True)
    assert_close(
        attribution.apply_ln_to_stack(pair.model, pair.cache, ours, recompute_ln=True),
        anew,
        "recompute_ln",
    )


def test_the_logit_lens(pair):
    with torch.no_grad():
        theirs = pair.theirs.unembed(pair.their_cache.accumulated_resid(apply_ln=True))
    assert_close(attribution.logit_lens(pair.model, pair.cache), theirs, "logit lens")


@pytest.mark.parametrize("pos_slice", [None, 5])
def test_logit_attributions(pair, pos_slice):
    ours, theirs = pair.agree("decompose_resid", pos_slice=pos_slice)
    rng = np.random.default_rng(1)
    drawn = rng.integers(pair.cfg.d_vocab_out, size=(2, *ours.shape[1:-1]))
    for right, wrong in ((1, None), (1, 2), (drawn[0], None), (drawn[0], drawn[1])):
        given = [
            token if token is None or isinstance(token, int) else torch.tensor(token)
            for token in (right, wrong)
        ]
        with torch.no_grad():
            expected = pair.their_cache.logit_attrs(theirs, *given, pos_slice=pos_slice)
        attrs = attribution.logit_attrs(
            pair.model, pair.cache, ours, right, wrong, pos_slice=pos_slice
        )
        assert_close(attrs, expected, f"tokens {right}, {wrong}")


@pytest.fixture(scope="module", params=OF_METHODS)
def face(request, random_weights, tokens):
    """A pair, and what the lines of `OF_ALL` name on each side: functions of a cache."""
    cfg = HookedTransformerConfig(**SHAPE | {"n_heads": 1} | OF_METHODS[request.param])
    from transformer_lens import utilities

    pair = Pair(HookedTransformer(cfg, params=random_weights(cfg)), tokens[:3])
    W = np.random.default_rng(2).normal(size=(4, 2))
    ours = {"W": W, "w": W[:, 0], "tokens": tokens[:3], "Slice": Slice}
    theirs = {
        "W": torch.tensor(W),
        "w": torch.tensor(W[:, 0]),
        "tokens": torch.tensor(tokens[:3], dtype=torch.long),
        "Slice": utilities.Slice,
    }
    return pair, ours, theirs


def fresh(pair):
    """New caches of both sides, so that no line sees what another added."""
    return (
        ActivationCache(dict(pair.cache.cache_dict), pair.model),
        transformer_lens.ActivationCache(dict(pair.their_cache.cache_dict), pair.theirs),
    )


def test_methods_of_the_cache(face):
    pair, ours, theirs = face
    for line in OF_ALL + ([] if pair.cfg.attn_only else OF_MLPS):
        cache, their_cache = fresh(pair)
        with torch.no_grad():
            expected = eval(line, theirs | {"cache": their_cache})
        found = eval(line, ours | {"cache": cache})
        assert found.shape == expected.shape, line
        if found.size:
            assert_close(found, expected, line)


def test_methods_of_the_cache_under_jit(face):
    pair, ours, theirs = face

    def everything(model, tokens):
        found = []
        for line in UNDER_JIT:
            _, cache = model.run_with_cache(tokens)
            found.append(eval(line, ours | {"cache": cache, "tokens": tokens}))
        return found

    with numerics(pair.cfg):
        results = jax.jit(everything)(pair.model, ours["tokens"])
    for line, found in zip(UNDER_JIT, results, strict=True):
        with torch.no_grad():
            assert_close(found, eval(line, theirs | {"cache": fresh(pair)[1]}), line)
