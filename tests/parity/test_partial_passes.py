"""Passes through some of the layers, with padding or after cached tokens, are TransformerLens 3.9's."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch
import transformer_lens
from model_family import case

from jax_revinc import HookedTransformer, TransformerLensKeyValueCache, UserError, numerics
from parity import to_torch
from torch_reference.installed_transformer_lens import WORLD

pytestmark = pytest.mark.skipif(WORLD != "3.9", reason="TransformerLens 3.9 is the reference")

NAMES = (
    "tutorial",
    "rotary, part of a head",
    "shortformer",
    "alibi",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("grouped and rotary", "bidirectional", "parallel", "local")
    ),
)
TOKENS = np.array([[4, 0, 1, 2, 3, 1], [1, 1, 0, 3, 2, 4], [0, 0, 2, 2, 4, 3]])
MASK = np.array([[1] * 6, [0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]])


@pytest.fixture(scope="module", params=NAMES)
def sides(request, random_weights):
    """Our model and TransformerLens' with the same weights, and the case's name."""
    cfg = case(request.param)
    ours = HookedTransformer(cfg, params=random_weights(cfg))
    with torch.no_grad():
        yield ours, to_torch(ours), request.param


def same(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours), theirs.detach().numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("stop", [0, 1, 2, -1, -2])
def test_a_pass_stops_before_a_layer(sides, stop):
    ours, theirs, _ = sides
    same(ours(TOKENS, stop_at_layer=stop), theirs(torch.tensor(TOKENS), stop_at_layer=stop))


def test_what_lies_behind_the_last_layer_is_not_computed(sides):
    ours, _, _ = sides
    _, cache = ours.run_with_cache(TOKENS, stop_at_layer=1)
    assert {name for name in cache if name.startswith("blocks.0")}
    assert not [name for name in cache if name.startswith(("blocks.1", "ln_final", "unembed"))]
    with pytest.raises(UserError, match=r"does not compute blocks.1.hook_resid_pre; choose"):
        ours.run_with_cache(TOKENS, stop_at_layer=1, names_filter="blocks.1.hook_resid_pre")
    traced = jax.make_jaxpr(lambda model: model(TOKENS, stop_at_layer=0))
    with numerics(ours.cfg):
        assert "exp" not in str(traced(ours))


@pytest.mark.parametrize(("start", "stop"), [(0, None), (1, None), (-1, None), (0, 1), (1, 2)])
def test_a_pass_starts_before_a_layer(sides, start, stop):
    ours, theirs, name = sides
    rng = np.random.default_rng(0)
    stream, pos = rng.normal(size=(2, *TOKENS.shape, ours.cfg.d_model))
    arguments = {"start_at_layer": start, "stop_at_layer": stop}
    if name == "shortformer":
        arguments["shortformer_pos_embed"] = pos
    tensors = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    same(ours(stream, **arguments), theirs(torch.tensor(stream), **tensors))
    if stop is None:
        same(
            ours(stream, "loss", tokens=TOKENS, **arguments),
            theirs(torch.tensor(stream), "loss", tokens=torch.tensor(TOKENS), **tensors),
        )


@pytest.mark.parametrize("return_type", ["logits", "loss"])
def test_padding_is_masked_as_in_transformer_lens(sides, return_type):
    ours, theirs, _ = sides
    masks = {"attention_mask": MASK}, {"attention_mask": torch.tensor(MASK)}
    same(
        ours(TOKENS, return_type, **masks[0]),
        theirs(torch.tensor(TOKENS), return_type, **masks[1]),
    )
    _, cache = ours.run_with_cache(TOKENS, **masks[0])
    _, their_cache = theirs.run_with_cache(torch.tensor(TOKENS), **masks[1])
    assert list(cache) == list(their_cache)
    for name in cache:
        np.testing.assert_allclose(cache[name], their_cache[name], rtol=0, atol=1e-12, err_msg=name)
    same(
        ours(TOKENS, "loss", loss_per_token=True, **masks[0]),
        theirs(torch.tensor(TOKENS), "loss", loss_per_token=True, **masks[1]),
    )


def test_a_padded_row_is_the_row_without_its_padding(sides):
    ours, _, name = sides
    if name == "bidirectional":
        pytest.skip("as in TransformerLens, bidirectional attention sees padding")
    padded = ours(TOKENS, attention_mask=MASK)
    for row, n_padding in enumerate((0, 2, 1)):
        alone = ours(TOKENS[row, n_padding:])[0]
        np.testing.assert_allclose(padded[row, n_padding:], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mask", [None, MASK], ids=["unpadded", "padded"])
def test_a_pass_goes_on_after_cached_tokens(sides, mask):
    ours, theirs, _ = sides
    cache = TransformerLensKeyValueCache.init_cache(ours.cfg, batch_size=3)
    their_cache = transformer_lens.TransformerLensKeyValueCache.init_cache(theirs.cfg, "cpu", 3)
    for part in (slice(0, 3), slice(3, 5), slice(5, 6)):
        given = np.ones_like(TOKENS) if mask is None else mask
        for block in theirs.blocks:  # else 3.9 takes the bias of a longer pass, rounded otherwise
            block.attn.alibi = None
        ours_is = ours(
            TOKENS[:, part],
            attention_mask=None if mask is None else mask[:, part],
            past_kv_cache=cache,
        )
        same(
            ours_is,
            theirs(
                torch.tensor(TOKENS[:, part]),
                attention_mask=torch.tensor(given[:, part]),
                past_kv_cache=their_cache,
            ),
        )
    for entry, their_entry in zip(cache.entries, their_cache.entries, strict=True):
        same(entry.past_keys, their_entry.past_keys)
        same(entry.past_values, their_entry.past_values)
    assert cache.previous_attention_mask.tolist() == their_cache.previous_attention_mask.tolist()


def test_a_frozen_cache_stays_and_a_jitted_function_returns_it(sides):
    ours, _, _ = sides
    empty = TransformerLensKeyValueCache.init_cache(ours.cfg, batch_size=3)

    @jax.jit
    def first_part(model, cache):
        return model(TOKENS[:, :3], past_kv_cache=cache), cache

    with numerics(ours.cfg):
        _, cache = first_part(ours, empty)
    assert (empty.n_positions, cache.n_positions) == (0, 3)
    cache.freeze()
    last = ours(TOKENS[:, 3:], past_kv_cache=cache)
    assert cache.n_positions == 3
    np.testing.assert_array_equal(ours(TOKENS[:, 3:], past_kv_cache=cache), last)
    cache.unfreeze()
    ours(TOKENS[:, 3:4], past_kv_cache=cache)
    assert cache.n_positions == 4


def test_input_to_embed_gives_what_the_blocks_are_given(sides):
    ours, theirs, _ = sides
    for mask in (None, MASK):
        found = ours.input_to_embed(TOKENS, attention_mask=mask)
        expected = theirs.input_to_embed(
            torch.tensor(TOKENS), attention_mask=None if mask is None else torch.tensor(mask)
        )
        for one, other in zip(found, expected, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                same(one, other)


@pytest.mark.parametrize("offset", [0, 2])
def test_positions_are_added_to_embeddings(sides, offset):
    ours, theirs, name = sides
    embed = np.random.default_rng(0).normal(size=(3, 6 - offset, ours.cfg.d_model))
    for mask in (None, MASK):
        found = ours.get_residual(embed, offset, attention_mask=mask)
        their_mask = None if mask is None else torch.tensor(mask)
        expected = theirs.get_residual(torch.tensor(embed), offset, attention_mask=their_mask)
        same(found[0], expected[0])
        assert (found[1] is None) == (expected[1] is None) == (name != "shortformer")
        if found[1] is not None:
            same(found[1], expected[1])
    alone = ours.get_residual(embed, offset, return_shortformer_pos_embed=False)
    np.testing.assert_array_equal(alone, ours.get_residual(embed, offset)[0])


def test_hooks_see_the_positions_that_are_added(sides):
    ours, _, name = sides
    if name != "tutorial":
        pytest.skip("the same for every model with positions")
    embed = np.zeros((1, 2, ours.cfg.d_model))
    with ours.hooks(fwd_hooks=[("hook_pos_embed", lambda x, hook: 2 * x)]):
        doubled, _ = ours.get_residual(embed, 1)
    np.testing.assert_array_equal(doubled, 2 * np.asarray(ours.get_residual(embed, 1)[0]))


def test_new_tokens_stand_after_cached_ones(sides):
    ours, _, _ = sides
    cache = TransformerLensKeyValueCache.init_cache(ours.cfg, batch_size=3)
    assert ours.get_pos_offset(None, 3) == ours.get_pos_offset(cache, 3) == 0
    ours(TOKENS[:, :4], past_kv_cache=cache)
    assert ours.get_pos_offset(cache, 3) == 4
    with pytest.raises(UserError, match="the input 2 sequences"):
        ours.get_pos_offset(cache, 2)
    with pytest.raises(UserError, match=r"from position 7 on are longer than n_ctx=8"):
        ours.get_residual(np.zeros((1, 2, ours.cfg.d_model)), 7)
    with pytest.raises(UserError, match="embed must be floats"):
        ours.get_residual(TOKENS, 0)
    with pytest.raises(UserError, match=r"attention_mask must have shape \[3, 6\]"):
        ours.get_residual(ours.W_E[TOKENS[:, :5]], 1, attention_mask=MASK[:, :5])


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5, "freq_penalty": 2.0}], ids=str)
def test_continuing_by_the_likeliest_of_one_token_needs_no_key(sides, options):
    ours, theirs, name = sides
    if name not in ("tutorial", "alibi"):
        pytest.skip("the same for every model")
    settings = {"max_new_tokens": 3, "stop_at_eos": False, "top_k": 1, **options}
    expected = theirs.generate(
        torch.tensor(TOKENS[:, :4]), **settings, use_past_kv_cache=False, verbose=False
    )
    assert ours.generate(TOKENS[:, :4], **settings).tolist() == expected.tolist()


@pytest.mark.parametrize(
    "ends", [{"stop_at_eos": False}, {"eos_token_id": 2}, {"eos_token_id": [3, 0]}]
)
def test_greedy_continuations_are_those_of_transformer_lens(sides, ends):
    ours, theirs, name = sides
    settings = {"max_new_tokens": 4, "do_sample": False, **ends}
    # Without a tokenizer, 3.9 counts positions wrongly where it keeps keys and values.
    their_settings = {"use_past_kv_cache": False, "verbose": False}
    our_settings = {"use_past_kv_cache": name != "bidirectional"}
    for length in (2, 5):
        tokens = TOKENS[:, :length]
        expected = theirs.generate(torch.tensor(tokens), **settings, **their_settings)
        assert ours.generate(tokens, **settings, **our_settings).tolist() == expected.tolist()


WRONG = [
    ({"start_at_layer": 0}, "floats"),
    ({"tokens": TOKENS}, "go with start_at_layer"),
    ({"attention_mask": MASK[:, :2]}, r"attention_mask must have shape \[3, 6\], not \[3, 2\]"),
    ({"past_kv_cache": {}}, "init_cache"),
    ({"stop_at_layer": "1"}, "stop_at_layer must be the index of a layer"),
    ({"return_type": "nothing"}, "unknown return_type"),
]


@pytest.mark.parametrize(("arguments", "phrase"), WRONG, ids=[next(iter(a)) for a, _ in WRONG])
def test_wrong_arguments_are_refused_in_a_sentence(sides, arguments, phrase):
    ours, _, name = sides
    if name != "tutorial":
        pytest.skip("the same for every model")
    with pytest.raises(UserError, match=phrase):
        ours(TOKENS, **arguments)


def test_text_and_lost_arguments_of_generate_are_refused_in_a_sentence(sides):
    ours, _, name = sides
    if name != "tutorial":
        pytest.skip("the same for every model")
    with pytest.raises(UserError, match="toy models have no tokenizer"):
        ours("some text")
    with pytest.raises(UserError, match="pass key="):
        ours.generate(TOKENS, 1, stop_at_eos=False)
    with pytest.raises(UserError, match="needs an eos_token_id"):
        ours.generate(TOKENS, 1, do_sample=False)
    with pytest.raises(UserError, match="ask for at most 3"):
        ours.generate(TOKENS, 5, stop_at_eos=False, do_sample=False)


def test_drawn_continuations_follow_the_models_distribution(sides):
    ours, _, name = sides
    if name != "tutorial":
        pytest.skip("the same for every model")
    n = 4000
    many = np.repeat(TOKENS[:1], n, axis=0)
    drawn = np.asarray(ours.generate(many, 1, stop_at_eos=False, key=jax.random.key(0)))[:, -1]
    logits = np.asarray(ours(TOKENS[:1]))[0, -1]
    expected = np.exp(logits - logits.max())
    expected *= n / expected.sum()
    observed = np.bincount(drawn, minlength=len(expected))
    # The deviation of a count is at most sqrt(n) / 2; five of them are seen in 1 of 10^6 runs.
    assert np.abs(observed - expected).max() < 2.5 * np.sqrt(n)
    again = ours.generate(many[:5], 3, stop_at_eos=False, key=jax.random.key(0))
    same_key = ours.generate(many[:5], 3, stop_at_eos=False, key=jax.random.key(0))
    assert again.tolist() == same_key.tolist()
