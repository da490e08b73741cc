"""The parts of a model: their hook points, and calling them alone."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_family import case

from jax_revinc import HookedTransformer, UserError, numerics


@pytest.mark.parametrize("name", ["tutorial", "grouped, all hooks", "attention only", "parallel"])
def test_every_hook_point_is_an_attribute_of_its_part(random_weights, name):
    cfg = case(name)
    model = HookedTransformer(cfg, params=random_weights(cfg))
    for full, point in model.hook_dict.items():
        part, _, last = full.rpartition(".")
        owner = model.mod_dict[part] if part else model
        assert getattr(owner, last) == point == model.mod_dict[full]


def test_a_hook_added_at_an_attribute_is_the_models(model64, tokens):
    model = copy.deepcopy(model64)
    model.blocks[0].attn.hook_z.add_hook(lambda z, hook: 0 * z)
    with_hook = model64.run_with_hooks(
        tokens, fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook: 0 * z)]
    )
    np.testing.assert_array_equal(model(tokens), with_hook)
    assert not model64.blocks[0].attn.hook_z.fwd_hooks
    inside = jax.jit(lambda model: model.blocks[0].attn.hook_z.has_hooks())
    assert inside(model)
    assert not inside(model64)


def test_what_a_part_lacks_is_an_attribute_error(model64):
    for part in (model64, model64.blocks[0], model64.blocks[0].attn):
        for name in ("hook_result", "hook_nothing", "W_nothing"):
            assert not hasattr(part, name)
            with pytest.raises(AttributeError, match=f"{type(part).__name__}.*{name}"):
                getattr(part, name)


def test_parts_called_alone_compute_what_the_model_computes(model64, tokens):
    with numerics(model64.cfg):
        logits, cache = model64.run_with_cache(tokens)
        given = jnp.asarray(tokens)
        embedded = model64.embed(given) + model64.pos_embed(given)
        first, last = model64.blocks
        resid = last(first(embedded))
        normalized = first.ln1(embedded)
        attn_out = first.attn(query_input=normalized, key_input=normalized, value_input=normalized)
        found = {
            "hook_embed": model64.embed(given),
            "blocks.0.hook_resid_pre": embedded,
            "blocks.0.hook_attn_out": attn_out,
            "blocks.0.hook_mlp_out": first.mlp(first.ln2(embedded + attn_out)),
            "blocks.1.hook_resid_post": resid,
        }
        for name, value in found.items():
            np.testing.assert_array_equal(value, cache[name], err_msg=name)
        np.testing.assert_array_equal(model64.unembed(model64.ln_final(resid)), logits)


def test_methods_of_a_torch_module_return_the_model(model64, tokens):
    logits = model64(tokens)
    same = model64.train().eval().requires_grad_(False).to(model64.cfg.device)
    assert same is model64
    assert model64.zero_grad() is None
    np.testing.assert_array_equal(model64(tokens), logits)


def test_a_hook_point_called_applies_its_hooks(model64):
    model = copy.deepcopy(model64)
    point = model.blocks[0].hook_attn_out
    assert point(jnp.ones(3)).tolist() == [1, 1, 1]
    point.add_hook(lambda x, hook: 2 * x)
    point.add_hook(lambda x, hook: x + 1)
    assert point(jnp.ones(3)).tolist() == [3, 3, 3]


def test_a_traced_model_can_be_copied_but_not_loaded_into(model64, tokens):
    with numerics(model64.cfg):
        copied = jax.jit(lambda model: copy.deepcopy(model)(tokens))
        np.testing.assert_allclose(copied(model64), model64(tokens), rtol=0, atol=1e-13)
        load = jax.jit(
            lambda model: model.load_state_dict({"unembed.b_U": model.b_U}, strict=False)
        )
        with pytest.raises(UserError, match="traced arrays can't be loaded"):
            load(model64)
