"""Ablation of every component: the same as an edit by hooks, and in one call."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jax_revinc import HookedTransformer, HookedTransformerConfig, UserError, numerics
from jax_revinc.analysis.ablation import (
    METHODS,
    Ablation,
    _ablate,
    ablation_table,
    components,
    mean_ablation,
    resample_ablation,
    zero_ablation,
)
from jax_revinc.objective import token_losses

CFG = HookedTransformerConfig(
    n_layers=2, d_model=4, d_head=2, d_mlp=3, d_vocab=5, n_ctx=5, dtype="float64"
)
PREDICTED = (3, 4)
PERMUTATION = np.array([2, 0, 3, 1, 5, 4])


@pytest.fixture(scope="module")
def sequences():
    return np.random.default_rng(0).integers(0, 5, size=(6, 5))


@pytest.fixture(scope="module")
def model(random_weights):
    return HookedTransformer(CFG, params=random_weights(CFG))


@pytest.fixture(scope="module")
def ablations(model, sequences):
    return {
        "zero": zero_ablation(model, sequences, PREDICTED),
        "mean": mean_ablation(model, sequences, PREDICTED),
        "resample": resample_ablation(model, sequences, PREDICTED, PERMUTATION),
    }


def replacement_by(method, activation):
    if method == "resample":
        return activation[PERMUTATION]
    return np.zeros_like(activation) if method == "zero" else activation.mean(0, keepdims=True)


@pytest.mark.parametrize("method", METHODS)
def test_each_component_is_replaced_and_nothing_else(model, sequences, ablations, method):
    fed, targets = sequences[:, :-1], sequences[:, list(PREDICTED)]
    _, cache = model.run_with_cache(fed)
    listed = components(CFG, fed.shape[1], method)
    found = ablations[method]
    assert found.loss_change.shape == (len(listed),)
    for i, (kind, hook_name, index) in enumerate(listed):

        def edit(activation, hook, kind=kind, index=index):
            original = np.array(activation)
            edited = original.copy()
            other = np.broadcast_to(
                replacement_by(method, np.asarray(cache[hook.name])), edited.shape
            )
            at = {
                "position": np.s_[:, index],
                "head": np.s_[:, :, index],
                "neuron": np.s_[..., index],
            }
            edited[at.get(kind, ...)] = other[at.get(kind, ...)]
            return edited

        with numerics(CFG):
            answers = model.run_with_hooks(fed, fwd_hooks=[(hook_name, edit)])[:, [2, 3]]
            loss = float(token_losses(answers, targets).mean())
        accuracy = (np.asarray(answers).argmax(-1) == targets).mean()
        label = f"{method} {kind} {hook_name} {index}"
        assert float(found.loss + found.loss_change[i]) == pytest.approx(loss, abs=1e-11), label
        assert float(found.accuracy + found.accuracy_change[i]) == pytest.approx(accuracy), label


def test_every_component_is_listed():
    kinds = [component.kind for component in components(CFG, 4, "mean")]
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == {
        "position": 2 * 4,
        "norm scale": 5,
        "norm": 5,
        "head": 2 * 2,
        "attention": 2,
        "neuron": 2 * 3,
        "MLP": 2,
    }
    assert {
        c.kind: c.hook for c in components(CFG, 4, "mean") if c.hook.startswith("blocks.1")
    } == {
        "position": "blocks.1.hook_resid_pre",
        "norm scale": "blocks.1.ln2.hook_scale",
        "norm": "blocks.1.ln2.hook_normalized",
        "head": "blocks.1.attn.hook_z",
        "attention": "blocks.1.hook_attn_out",
        "neuron": "blocks.1.mlp.hook_post",
        "MLP": "blocks.1.hook_mlp_out",
    }
    zeroed = [component.kind for component in components(CFG, 4, "zero")]
    assert "norm scale" not in zeroed
    assert "norm" in zeroed
    bare = CFG.replace(attn_only=True, normalization_type=None)
    assert {c.kind for c in components(bare, 4, "mean")} == {"position", "head", "attention"}


def test_to_resample_from_oneself_changes_nothing(model, sequences):
    same = resample_ablation(model, sequences, PREDICTED, np.arange(6))
    assert float(np.abs(same.loss_change).max()) < 1e-13
    assert not np.any(same.accuracy_change)


@pytest.mark.slow
def test_many_models_at_once_give_what_each_gives(model, sequences, random_weights):
    cfg = CFG.replace(n_layers=1, attn_only=True, normalization_type=None)
    several = [random_weights(cfg, seed) for seed in (0, 1)]

    def of_params(params):
        return mean_ablation(HookedTransformer(cfg, params=params), sequences[:, :3], (2,))

    def total_and_all(params):
        found = of_params(params)
        return found.loss_change.sum(), found

    with numerics(CFG):
        both = jax.jit(jax.vmap(jax.value_and_grad(total_and_all, has_aux=True)))
        (_, together), slopes = both(jax.tree.map(lambda *x: np.stack(x), *several))
    assert isinstance(together, Ablation)
    for i, params in enumerate(several):
        for found, expected in zip(together, of_params(params), strict=True):
            np.testing.assert_allclose(found[i], expected, rtol=0, atol=1e-12)
    assert all(np.isfinite(slope).all() for slope in slopes.values())
    assert np.abs(slopes["unembed.W_U"]).max() > 1e-3


def test_the_table_has_a_row_for_each(ablations):
    table = ablation_table(CFG, 4, ablations)
    assert list(table) == ["method", "kind", "hook", "part", "loss_change", "accuracy_change"]
    assert len(table) == sum(len(components(CFG, 4, method)) for method in METHODS)
    head = table.query("method == 'mean' and hook == 'blocks.1.attn.hook_z' and part == 1")
    listed = components(CFG, 4, "mean").index(("head", "blocks.1.attn.hook_z", 1))
    assert head.loss_change.item() == np.asarray(ablations["mean"].loss_change)[listed]


def test_bad_input_is_refused_in_a_sentence(model, sequences):
    with pytest.raises(UserError, match=r"must have shape \[batch, pos\]"):
        zero_ablation(model, sequences[None], PREDICTED)
    with pytest.raises(UserError, match=r"at least one and each in 1\.\.4, not \(0,\)"):
        zero_ablation(model, sequences, (0,))
    with pytest.raises(UserError, match=r"at least one and each in 1\.\.4, not \(5,\)"):
        mean_ablation(model, sequences, (5,))
    with pytest.raises(UserError, match="one integer for each of the 6 sequences"):
        resample_ablation(model, sequences, PREDICTED, np.arange(5))
    with pytest.raises(UserError, match="one integer for each of the 6 sequences"):
        resample_ablation(model, sequences, PREDICTED, np.ones(6))
    with pytest.raises(UserError, match=r"indices of sequences in 0\.\.5"):
        resample_ablation(model, sequences, PREDICTED, np.arange(6) + 1)
    with pytest.raises(UserError, match="unknown method 'median'"):
        components(CFG, 4, "median")


def test_no_number_is_broken_on_the_way(tutorial, random_weights):
    """A norm divided by zero would be NaN, though zero ablation leaves it out of what it returns."""
    cfg, tokens = tutorial.model, tutorial.task.sequences()[:3]
    model = HookedTransformer(cfg, params=random_weights(cfg))
    with jax.debug_nans(True):
        found = _ablate(model, (5,), 0, tokens, np.arange(3))
    assert np.isfinite(found.loss_change).all()
