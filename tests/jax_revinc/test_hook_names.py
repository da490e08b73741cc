from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jax_revinc import UserError, get_act_name
from jax_revinc.hooks.hook_names import select_names

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


def test_a_filter_of_another_kind_is_refused_and_a_shorthand_explained():
    with pytest.raises(UserError, match="not 3"):
        select_names(3, KNOWN)
    with pytest.raises(UserError, match=r"did you mean blocks\.0\.attn\.hook_q\?"):
        select_names("q0", KNOWN)
