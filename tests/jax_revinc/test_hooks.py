from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jax_revinc import ActivationCache, HookPoint, UserError, get_act_name
from jax_revinc.hooks import (
    applying,
    identity,
    one_call_handles,
    recording,
    scoped,
    select_names,
)

KNOWN = ["hook_embed", "blocks.0.attn.hook_q", "blocks.0.attn.hook_k", "blocks.1.attn.hook_q"]

NAMES = [
    "embed",
    "pos_embed",
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
    "q",
    "k",
    "v",
    "z",
    "pattern",
    "attn_scores",
    "pre",
    "post",
    "scale",
    "normalized",
    "in",
    "out",
    "attn",
    "attn_logits",
    "query",
    "key",
    "value",
    "mlp_pre",
    "mlp_post",
    "hook_embed",
    "blocks.0.attn.hook_pattern",
    "ln_final.hook_scale",
    "k6",
    "scale4ln1",
    "normalized11ln2",
    "pre5",
    "resid_post0",
    "attn2",
    "q0a",
    "mlp_out3b",
]


def editing(fwd_hooks):
    return applying(one_call_handles(fwd_hooks, KNOWN), HookPoint)


@settings(max_examples=400)
@given(
    name=st.sampled_from(NAMES),
    layer=st.none() | st.integers(0, 30),
    layer_type=st.none()
    | st.sampled_from(["a", "m", "b", "block", "blocks", "attention", "attn", "mlp", "ln1", "ln2"]),
)
@example("k", 6, "a")
@example("scale", None, None)
def test_shorthands_mean_what_they_mean_in_transformer_lens(name, layer, layer_type):
    utilities = pytest.importorskip("transformer_lens.utilities")
    if layer is None and name in ("scale", "normalized"):
        layer_type = None  # the final norm has no type
    expected = utilities.get_act_name(name, layer, layer_type)
    assert get_act_name(name, layer, layer_type) == expected


@pytest.fixture
def cache():
    activations = {
        "hook_embed": np.array(0.0),
        "blocks.0.attn.hook_pattern": np.array(1.0),
        "blocks.1.attn.hook_pattern": np.array(2.0),
        "blocks.1.ln2.hook_normalized": np.array(3.0),
        "ln_final.hook_scale": np.array(4.0),
    }
    return ActivationCache(activations, n_layers=2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hook_embed", 0),
        ("embed", 0),
        (("embed",), 0),
        (("embed", None), 0),
        ("blocks.0.attn.hook_pattern", 1),
        (("pattern", 0), 1),
        (("attn", 0), 1),
        ("pattern1", 2),
        (("pattern", 1, "attn"), 2),
        (("pattern", -1), 2),
        (("pattern", -2), 1),
        (("pattern", np.int64(1)), 2),
        (("pattern", np.int64(-1)), 2),
        (("normalized", 1, "ln2"), 3),
        (("normalized", -1, "ln2"), 3),
        ("scale", 4),
    ],
)
def test_a_cache_is_indexed_by_names_and_shorthands(cache, key, value):
    assert cache[key] == value
    assert key in cache


@pytest.mark.parametrize(
    "key", [("pattern", 2), ("pattern", -3), "hook_embedd", ("q", 0), 0, (1, 2), ("pattern", 0.5)]
)
def test_a_missing_activation_is_a_key_error_that_names_it(cache, key):
    assert key not in cache
    with pytest.raises(KeyError, match="is not in the cache"):
        cache[key]


def test_a_cache_is_a_mapping_in_order(cache):
    assert len(cache) == 5
    assert list(cache)[:2] == ["hook_embed", "blocks.0.attn.hook_pattern"]
    assert dict(cache.items()) == cache.cache_dict


def test_a_cache_prints_names_and_shapes():
    cache = ActivationCache(
        {"hook_embed": jax.numpy.zeros((2, 3, 4)), "ln_final.hook_scale": 1.0}, 1
    )
    assert repr(cache).splitlines() == [
        "ActivationCache, by hook name and shape:",
        "  hook_embed [2, 3, 4]",
        "  ln_final.hook_scale []",
    ]


def test_a_cache_is_a_pytree_that_keeps_its_order(cache):
    doubled = jax.tree.map(lambda activation: 2 * activation, cache)
    assert isinstance(doubled, ActivationCache)
    assert list(doubled) == list(cache)
    assert doubled["pattern", -1] == 4
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(cache)]
    assert jax.tree_util.keystr(paths[0]) == "['hook_embed']"


@pytest.mark.parametrize(
    ("names_filter", "picked"),
    [
        (None, KNOWN),
        ("hook_embed", ["hook_embed"]),
        (["blocks.1.attn.hook_q", "hook_embed"], ["blocks.1.attn.hook_q", "hook_embed"]),
        (("hook_embed",), ["hook_embed"]),
        ([], []),
        (lambda name: name.endswith("q"), ["blocks.0.attn.hook_q", "blocks.1.attn.hook_q"]),
    ],
)
def test_filters_pick_names(names_filter, picked):
    assert select_names(names_filter, KNOWN) == picked


def test_an_unknown_name_lists_the_near_ones():
    with pytest.raises(UserError, match=r"no hook 'blocks.0.attn.hook_qq'.*blocks.0.attn.hook_q "):
        select_names("blocks.0.attn.hook_qq", KNOWN)
    with pytest.raises(UserError, match=r"no hook 'zzz'$"):
        select_names(["hook_embed", "zzz"], KNOWN)
    with pytest.raises(UserError, match="picks none of the model's 4"):
        select_names(lambda name: False, KNOWN)


def test_hook_points_know_their_layer():
    assert HookPoint("blocks.11.attn.hook_q").layer() == 11
    with pytest.raises(UserError, match="hook_embed belongs to no layer"):
        HookPoint("hook_embed").layer()


def test_taps_scope_edit_and_record():
    record = {}
    edits = editing([("blocks.0.attn.hook_q", lambda x, hook: x + 1)])
    tap = scoped(scoped(recording(edits, ["blocks.0.attn.hook_q"], record), "blocks.0"), "attn")
    activation = np.float32(5.0)
    assert tap("hook_q", activation) == 6
    assert tap("hook_k", activation) is activation
    assert list(record.items()) == [("blocks.0.attn.hook_q", 6)]
    assert identity("anything", activation) is activation


@pytest.mark.parametrize(
    "fwd_hooks", [("hook_embed", print), [("hook_embed", None)], [("hook_embed",)], ["hook_embed"]]
)
def test_hooks_that_are_no_pairs_are_refused_in_a_sentence(fwd_hooks):
    with pytest.raises(UserError, match="pairs in a list"):
        editing(fwd_hooks)


def test_a_filter_of_another_kind_is_refused_and_a_shorthand_explained():
    with pytest.raises(UserError, match="not 3"):
        select_names(3, KNOWN)
    with pytest.raises(UserError, match=r"did you mean blocks\.0\.attn\.hook_q\?"):
        select_names("q0", KNOWN)


def test_a_hook_that_returns_complex_numbers_is_refused():
    tap = editing([("hook_embed", lambda a, hook: a + 0j)])
    with pytest.raises(UserError, match=r"hook_embed returned .*, not an array of real numbers"):
        tap("hook_embed", np.zeros((1, 2), np.float32))
