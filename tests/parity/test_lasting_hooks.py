"""Hooks of activations and gradients, and how long they last, are TransformerLens 3.9's."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from model_family import case

from jax_revinc import HookedTransformer, UserError, numerics
from parity import to_torch
from torch_reference.installed_transformer_lens import WORLD

pytestmark = pytest.mark.skipif(WORLD != "3.9", reason="TransformerLens 3.9 is the reference")

TOKENS = np.array([[4, 0, 1, 2, 3, 1], [1, 1, 0, 3, 2, 4]])
RESID, PATTERN, EMBED = "blocks.0.hook_resid_post", "blocks.1.attn.hook_pattern", "hook_embed"
MLP = "blocks.1.hook_mlp_out"


@pytest.fixture(scope="module")
def weights(random_weights):
    return random_weights(case("tutorial"))


@pytest.fixture
def sides(weights):
    """Our model and TransformerLens' with the same weights, without hooks."""
    ours = HookedTransformer(case("tutorial"), params=weights)
    return ours, to_torch(ours)


def numbers(value):
    return value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def same(ours, theirs, name=""):
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=0, atol=1e-12, err_msg=name)


def logits_are_the_same(sides):
    ours, theirs = sides
    with torch.no_grad():
        same(ours(TOKENS), theirs(torch.tensor(TOKENS)))


def half(activation, hook):
    return activation * 0.5


def add_one(activation, hook):
    return activation + 1


def outline(model):
    """The hooks of a model: of each name the functions, with their kind and level."""
    return {
        name: [(h.user_hook, h.is_permanent, h.context_level) for h in handles]
        for name, handles in model.list_hooks().items()
    }


# What a user does to a model, on both sides. The first letter of a name is what it is about.
EDITS = {
    "add": lambda m: m.add_hook(RESID, half),
    "add twice": lambda m: [m.add_hook(RESID, half), m.add_hook(RESID, add_one)],
    "prepend": lambda m: [m.add_hook(RESID, half), m.add_hook(RESID, add_one, prepend=True)],
    "by predicate": lambda m: m.add_hook(lambda name: name.endswith("hook_pattern"), half),
    "permanent": lambda m: m.add_perma_hook(RESID, half),
    "at a point": lambda m: m.hook_dict[RESID].add_hook(half),
    "permanent at a point": lambda m: m.hook_dict[RESID].add_perma_hook(half),
    "reset": lambda m: [m.add_hook(RESID, half), m.add_perma_hook(PATTERN, half), m.reset_hooks()],
    "reset all": lambda m: [m.add_perma_hook(RESID, half), m.reset_hooks(including_permanent=True)],
    "reset a direction": lambda m: [m.add_hook(RESID, half), m.reset_hooks(direction="bwd")],
    "reset a level": lambda m: [
        m.add_hook(RESID, half, level=1),
        m.add_hook(PATTERN, half, level=2),
        m.reset_hooks(level=1),
    ],
    "remove at a point": lambda m: [
        m.add_hook(RESID, half),
        m.add_hook(PATTERN, half),
        m.hook_dict[RESID].remove_hooks("both"),
    ],
    "keep": lambda m: m.run_with_hooks(ids(m), fwd_hooks=[(RESID, half)], reset_hooks_end=False),
    "let go": lambda m: m.run_with_hooks(ids(m), fwd_hooks=[(RESID, half)]),
}


def ids(model):
    return TOKENS if isinstance(model, HookedTransformer) else torch.tensor(TOKENS)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_what_is_done_to_hooks_has_the_same_effect(sides, edit):
    for model in sides:
        edit(model)
    assert outline(sides[0]) == outline(sides[1])
    logits_are_the_same(sides)
    ours, theirs = (model.hook_dict[RESID] for model in sides)
    for dir in ("fwd", "bwd", "both"):
        for permanent in (True, False):
            asked = {"dir": dir, "including_permanent": permanent}
            assert ours.has_hooks(**asked) == theirs.has_hooks(**asked)


def test_contexts_nest_and_end_even_by_an_exception(sides):
    for model in sides:
        model.add_perma_hook(MLP, half)
        with pytest.raises(ZeroDivisionError), model.hooks([(RESID, half)]) as inner:  # noqa: PT012
            assert inner is model
            with model.hooks(fwd_hooks=[(RESID, add_one), (PATTERN, half)]):
                model.add_hook(EMBED, half)
                model.add_perma_hook(EMBED, add_one)
            raise ZeroDivisionError
        assert model.context_level == 0
    assert outline(sides[0]) == outline(sides[1])
    assert set(outline(sides[0])) == {MLP, EMBED}
    logits_are_the_same(sides)


def test_a_context_with_an_unknown_name_adds_nothing(sides):
    ours, _ = sides
    with (
        pytest.raises(UserError, match="no hook 'hook_embedd'"),
        ours.hooks([(RESID, half), ("hook_embedd", half)]),
    ):
        pass
    assert (ours.list_hooks(), ours.context_level) == ({}, 0)


def masked_by(model, mask_of, where):
    """Add two permanent hooks that mask padding: one keeps it in its ``ctx``, one reads it there."""

    def keep(tokens, hook):
        hook.ctx["padding"] = mask_of(tokens)

    def mask(scores, hook):
        return where(model.hook_dict["hook_tokens"].ctx["padding"], scores)

    model.hook_dict["hook_tokens"].add_perma_hook(keep)
    for name, point in model.hook_dict.items():
        if name.endswith("attn_scores"):
            point.add_perma_hook(mask)


def test_hooks_talk_through_their_contexts_also_under_jit(random_weights):
    cfg = case("bidirectional").replace(use_hook_tokens=True)
    ours = HookedTransformer(cfg, params=random_weights(cfg))
    theirs = to_torch(ours)
    plain = ours(TOKENS)
    jitted = jax.jit(lambda model, tokens: model(tokens))
    with numerics(cfg):
        same(jitted(ours, TOKENS), plain)
    masked_by(
        ours,
        lambda tokens: (tokens == 1)[:, None, None, :],
        lambda padding, scores: jnp.where(padding, -1e5, scores),
    )
    masked_by(
        theirs,
        lambda tokens: (tokens == 1)[:, None, None, :],
        lambda padding, scores: scores.masked_fill(padding, -1e5),
    )
    with torch.no_grad():
        expected = theirs(torch.tensor(TOKENS))
    same(ours(TOKENS), expected)
    assert np.abs(np.asarray(plain) - expected.numpy()).max() > 1e-3
    with numerics(cfg):
        same(jitted(ours, TOKENS), expected)
        ours.reset_hooks(including_permanent=True)
        same(jitted(ours, TOKENS), plain)
    assert ours.hook_dict["hook_tokens"].ctx == {}


def test_a_jitted_function_never_uses_stale_hooks(sides):
    ours, _ = sides
    jitted = jax.jit(lambda model: model(TOKENS))
    with numerics(ours.cfg):
        plain = jitted(ours)
        ours.add_hook(RESID, half)
        same(jitted(ours), ours(TOKENS))
        assert np.abs(np.asarray(jitted(ours) - plain)).max() > 1e-3
        ours.reset_hooks()
        ours.add_hook(RESID, add_one)
        same(jitted(ours), ours(TOKENS))
        ours.reset_hooks()
        np.testing.assert_array_equal(jitted(ours), plain)
        assert jitted._cache_size() == 3


def test_hooks_see_concrete_arrays_in_order_outside_jit(sides):
    ours, theirs = sides
    seen = {}
    for model in sides:
        seen[model] = []
        for name in (PATTERN, RESID, EMBED, "unembed.hook_out"):

            def look(activation, hook, model=model):
                seen[model].append((hook.name, hook.layer() if "blocks" in hook.name else None))
                float(activation.sum())  # a traced array has no number

            model.add_hook(name, look)
    logits_are_the_same(sides)
    assert seen[ours] == seen[theirs]
    assert [name for name, _ in seen[ours]] == [EMBED, RESID, PATTERN, "unembed.hook_out"]


@pytest.mark.parametrize("pos_slice", [None, 2, (1, 4), [0, 3]], ids=str)
def test_caching_hooks_store_what_run_with_cache_returns(sides, pos_slice):
    ours, theirs = sides
    arguments = {"pos_slice": pos_slice, "names_filter": lambda name: "attn" in name}
    cache, fwd, bwd = ours.get_caching_hooks(**arguments)
    assert bwd == []
    ours.run_with_hooks(TOKENS, fwd_hooks=fwd)
    _, expected = theirs.run_with_cache(torch.tensor(TOKENS), **arguments)
    _, returned = ours.run_with_cache(TOKENS, return_cache_object=False, **arguments)
    assert list(cache) == list(expected) == list(returned)
    for name in cache:
        same(cache[name], expected[name], name)
        same(returned[name], expected[name], name)


def test_added_caching_hooks_store_until_they_are_removed(sides):
    ours, _ = sides
    caches = [model.add_caching_hooks(["hook_embed", PATTERN]) for model in sides]
    logits_are_the_same(sides)
    for name in (EMBED, PATTERN):
        same(caches[0][name], caches[1][name], name)
    ours.reset_hooks()
    caches[0].clear()
    ours(TOKENS)
    assert caches[0] == {}
    some = {}
    ours.cache_some(some, lambda name: name == RESID)
    ours(TOKENS)
    assert list(some) == [RESID]


# Gradients


def test_gradients_of_all_activations_are_those_of_transformer_lens(sides):
    ours, theirs = sides
    loss, cache = ours.run_with_cache(TOKENS, return_type="loss", incl_bwd=True)
    their_loss, expected = theirs.run_with_cache(
        torch.tensor(TOKENS), return_type="loss", incl_bwd=True
    )
    same(loss, their_loss)
    assert set(cache) == set(expected)
    assert f"{PATTERN}_grad" in cache
    for name in cache:
        # 3.9 normalises the input of queries, keys and values three times, and keeps one gradient.
        if ".ln1." not in name or not name.endswith("_grad"):
            same(cache[name], expected[name], name)
    summed = {}

    def add_up(gradient, hook):
        summed[hook.name] = summed.get(hook.name, 0) + gradient.detach()

    with theirs.hooks(bwd_hooks=[(lambda name: ".ln1." in name, add_up)]):
        theirs(torch.tensor(TOKENS), return_type="loss").backward()
    assert len(summed) == 4
    for name, gradient in summed.items():
        same(cache[f"{name}_grad"], gradient, name)
    with pytest.raises(UserError, match="pass return_type='loss'"):
        ours.run_with_cache(TOKENS, incl_bwd=True)


def no_gradient(gradient, hook):
    return gradient * 0


GRADIENT_EDITS = {
    "edited": [("bwd", RESID, no_gradient)],
    "last one wins": [("bwd", RESID, no_gradient), ("bwd", RESID, half)],
    "looked at": [("bwd", RESID, lambda gradient, hook: None)],
    "beside a forward hook": [("fwd", RESID, half), ("bwd", RESID, lambda g, hook: g * 3)],
    "behind a forward hook": [("fwd", RESID, half), ("bwd", RESID, lambda g, hook: None)],
    "in a tuple": [("bwd", PATTERN, lambda gradient, hook: (gradient * 2,))],
}


@pytest.mark.parametrize("hooks", GRADIENT_EDITS.values(), ids=GRADIENT_EDITS)
@pytest.mark.parametrize("jitted", [False, True])
def test_edited_gradients_reach_the_parameters_as_in_transformer_lens(sides, hooks, jitted):
    ours, theirs = sides
    for dir, name, function in hooks:
        for model in sides:
            model.add_hook(name, function, dir=dir)
    theirs(torch.tensor(TOKENS), return_type="loss").backward()
    gradient = jax.grad(lambda model: model(TOKENS, return_type="loss"))
    with numerics(ours.cfg):
        found = (jax.jit(gradient) if jitted else gradient)(ours).params
    for name, parameter in theirs.named_parameters():
        expected = np.zeros(parameter.shape) if parameter.grad is None else parameter.grad
        same(found[name], expected, name)


def test_gradients_beside_hooks_are_cached_as_in_transformer_lens(sides):
    for model in sides:
        model.add_hook(RESID, half)
        model.add_hook(PATTERN, no_gradient, dir="bwd")
    names = [EMBED, RESID, PATTERN, MLP]
    caches = [
        model.run_with_cache(ids(model), return_type="loss", incl_bwd=True, names_filter=names)[1]
        for model in sides
    ]
    assert set(caches[0]) == {*names, *(f"{name}_grad" for name in names)}
    for name in caches[0]:
        same(caches[0][name], caches[1][name], name)


def test_a_hook_of_gradients_sees_concrete_arrays_outside_jit(sides):
    ours, _ = sides
    seen = []
    ours.add_hook(RESID, lambda gradient, hook: seen.append(float(jnp.abs(gradient).sum())), "bwd")
    with numerics(ours.cfg):
        jax.grad(lambda model: model(TOKENS, return_type="loss"))(ours)
    assert len(seen) == 1
    assert seen[0] > 0


# Under transformations


def test_hooks_work_under_vmap_over_models(sides, random_weights):
    ours, _ = sides
    ours.add_hook(RESID, half)
    others = [random_weights(ours.cfg, seed) for seed in (1, 2)]
    with numerics(ours.cfg):
        models = [HookedTransformer(ours.cfg, params=w) for w in others]
        for model in models:
            model.add_hook(RESID, half)
        together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
        found = jax.vmap(lambda model: model(TOKENS))(together)
        for model, logits in zip(models, found, strict=True):
            same(logits, model(TOKENS))


def test_models_with_equal_hooks_share_a_program_and_a_copy_keeps_hooks(sides, weights):
    ours, _ = sides
    other = HookedTransformer(ours.cfg, params=weights)
    jitted = jax.jit(lambda model: model(TOKENS))
    for model in (ours, other):
        model.add_hook(RESID, half)
        with numerics(ours.cfg):
            jitted(model)
    assert jitted._cache_size() == 1
    copied = jax.tree.map(lambda leaf: leaf, ours)
    assert outline(copied) == outline(ours)
    copied.reset_hooks()
    assert outline(ours) != {}


def test_what_is_no_hook_is_refused_in_a_sentence(sides):
    ours, _ = sides
    for wrong in (
        lambda: ours.add_hook("hook_embedd", half),
        lambda: ours.add_hook(RESID, None),
        lambda: ours.add_hook(RESID, half, dir="up"),
        lambda: ours.reset_hooks(direction="up"),
        lambda: ours.hook_dict[RESID].remove_hooks("up"),
    ):
        with pytest.raises(UserError):
            wrong()
    assert ours.list_hooks() == {}
    assert functools.reduce(lambda a, b: a and b, (p.ctx == {} for p in ours.hook_points()))


SWITCHES = (
    "use_attn_result",
    "use_split_qkv_input",
    "use_hook_mlp_in",
    "use_attn_in",
)


@pytest.mark.parametrize("field", SWITCHES)
def test_switches_add_hook_points_in_place(sides, field):
    ours, theirs = sides
    for value in (True, False):
        for model in sides:
            getattr(model, f"set_{field}")(value)
        assert getattr(ours.cfg, field) is value
        _, cache = ours.run_with_cache(TOKENS)
        with torch.no_grad():
            _, expected = theirs.run_with_cache(torch.tensor(TOKENS))
        assert list(cache) == list(expected)
        for name in cache:
            same(cache[name], expected[name], name)


def test_a_switch_does_not_take_hooks_away(sides):
    ours, _ = sides
    ours.set_use_attn_result(True)
    ours.add_hook("blocks.0.attn.hook_result", half)
    with pytest.raises(UserError, match=r"would lose blocks\.0\.attn\.hook_result"):
        ours.set_use_attn_result(False)
    assert ours.cfg.use_attn_result
