"""Faults planted in the port are caught: by the level of the judge, and in the place, that they should be.

A fault is a piece of source that reads otherwise, in a copy of its module that stands in for the module
wherever it is imported. ``docs/mutants.md`` is the table of what was found; after a change to it:

    WRITE_DOCS=1 python -m pytest -m slow tests/parity/test_mutants.py
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from jax_revinc import (
    HookedTransformer,
    TrainConfig,
    components,
    hooks,
    model,
    objective,
    optimizer,
)
from jax_revinc.engines import xla
from parity import bridge, training_levels
from parity.check import OF_MODELS
from parity.levels import TITLES
from parity.model_levels import check_level, check_names
from parity.pair import Pair
from parity.question import Question
from revinc import HookedTransformerConfig, dataset, schedule
from revinc.tasks import predicted_positions
from torch_reference.installed import WORLD

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(WORLD != "3.9", reason="the table is of TransformerLens 3.9"),
]

MODEL = TrainConfig().model.replace(n_layers=1, n_heads=2, dtype="float64")
RECIPE = TrainConfig(steps=24, model=MODEL)
QUESTION = Question(RECIPE.task.sequences()[3::16], predicted_positions(RECIPE.task))

PAGE = Path(__file__).parents[2] / "docs" / "mutants.md"
PACKAGES = ("revinc", "jax_revinc", "torch_reference", "parity")


@dataclass(frozen=True)
class Mutant:
    """A fault: in `module`, `old` reads `new`. `level` is the first that sees it, and `place` where."""

    fault: str
    kind: str
    module: ModuleType
    old: str
    new: str
    level: str
    place: str
    cfg: HookedTransformerConfig


def planting(kind: str, module: ModuleType) -> Callable[..., Mutant]:
    """A function that describes a fault in `module`; the level that sees it is named, as in ``L1="hook_embed"``."""

    def plant(
        fault: str, old: str, new: str, cfg: HookedTransformerConfig = MODEL, **found: str
    ) -> Mutant:
        ((level, place),) = found.items()
        return Mutant(fault, kind, module, old, new, level, place, cfg)

    return plant


part = planting("model", components)
whole = planting("model", model)
tap = planting("model", hooks)
loss = planting("model", objective)
adam = planting("optimizer", optimizer)
training_loss = planting("training", objective)
step = planting("training", xla)
batches = planting("training", schedule)
data = planting("training", dataset)


def conversion(
    fault: str, weight: str, name: str = "n", cfg: HookedTransformerConfig = MODEL, **found: str
) -> Mutant:
    """A fault in how a weight `w` of name `n` comes from TransformerLens: as this expression, by that name."""
    read = "adapter.read_weights(model, cfg)"
    converted = f"{{{name}: {weight} for n, w in {read}.items()}}"
    return planting("conversion", bridge)(fault, read, converted, cfg, **found)


VARIANCE = "(x**2).mean(-1, keepdims=True)"
SCALE = f"jnp.sqrt({VARIANCE} + self.eps)"
NUMBERS = "x.b1, x.b2, x.eps"
ADAMW = f"optax.adamw(lr, {NUMBERS}, weight_decay=wd)"


def adamw(numbers: str = NUMBERS, weight_decay: str = "wd") -> str:
    """Our optimizer with other numbers."""
    return f"optax.adamw(lr, {numbers}, weight_decay={weight_decay})"


def wrapped(optimizer: str = ADAMW, gradient: str = "g", state: str = "s") -> str:
    """An optimizer, given something else for the gradient or for its state."""
    update = f"lambda g, s, p: inner.update({gradient}, {state}, p)"
    return f"(lambda inner: optax.GradientTransformation(inner.init, {update}))({optimizer})"


GELU = MODEL.replace(act_fn="gelu")
TWO = MODEL.replace(n_layers=2)
SQUARE = MODEL.replace(d_head=4)

MUTANTS = [
    # L0
    part(
        "a hook renamed", '"hook_attn_scores"', '"hook_scores"', L0="blocks.0.attn.hook_attn_scores"
    ),
    part(
        "a hook forgotten",
        'tap("hook_pre", x_BPM @ self.W_in + self.b_in)',
        "x_BPM @ self.W_in + self.b_in",
        L0="blocks.0.mlp.hook_pre",
    ),
    part(
        "a hook too many",
        "return post_BPF @ self.W_out + self.b_out",
        'return tap("hook_out", post_BPF @ self.W_out + self.b_out)',
        L0="blocks.0.mlp.hook_out",
    ),
    part(
        "queries with their heads first",
        'tap("hook_q", project_heads(x_BPM, self.W_Q, self.b_Q))',
        'tap("hook_q", project_heads(x_BPM, self.W_Q, self.b_Q).swapaxes(1, 2)).swapaxes(1, 2)',
        L0="blocks.0.attn.hook_q",
    ),
    part(
        "hook_z behind W_O",
        'jnp.einsum("bphe,hem->bpm", z_BPHE, self.W_O)',
        'tap("hook_z", jnp.einsum("bphe,hem->bpm", z_BPHE, self.W_O))',
        L0="blocks.0.attn.hook_z",
    ),
    whole(
        "positional embedding hooked before it is repeated",
        'tap("hook_pos_embed", self.pos_embed(tokens_BP))',
        'tap("hook_pos_embed", self.pos_embed(tokens_BP)[0])',
        L0="hook_pos_embed",
    ),
    # L1 embeddings
    part(
        "token embedding scaled",
        "return self.W_E[tokens_BP]",
        "return self.W_E[tokens_BP] * 2",
        L1="hook_embed",
    ),
    part(
        "positional embedding shifted by one",
        "self.W_pos[:length]",
        "self.W_pos[1 : length + 1]",
        L1="hook_pos_embed",
    ),
    whole(
        "positional embedding not added",
        'embed_BPM + tap("hook_pos_embed"',
        'embed_BPM + 0 * tap("hook_pos_embed"',
        L1="blocks.0.hook_resid_pre",
    ),
    # norm
    part(
        "epsilon outside the root",
        SCALE,
        f"jnp.sqrt({VARIANCE}) + self.eps",
        L1="blocks.0.ln1.hook_scale",
    ),
    part(
        "epsilon of 1e-12", "self.eps = cfg.eps", "self.eps = 1e-12", L1="blocks.0.ln1.hook_scale"
    ),
    part("epsilon of 1e-6", "self.eps = cfg.eps", "self.eps = 1e-6", L1="blocks.0.ln1.hook_scale"),
    part(
        "variance over n - 1",
        VARIANCE,
        "x.var(-1, ddof=1, keepdims=True)",
        L1="blocks.0.ln1.hook_scale",
    ),
    part("not centred", "x = x - x.mean(-1, keepdims=True)", "", L1="blocks.0.ln1.hook_scale"),
    part(
        "hook_scale shows the inverse of the scale",
        f'tap("hook_scale", {SCALE})',
        f'1 / tap("hook_scale", 1 / {SCALE})',
        L1="blocks.0.ln1.hook_scale",
    ),
    part(
        "gain forgotten",
        "super().__call__(x, tap) * self.w",
        "super().__call__(x, tap)",
        L1="blocks.0.attn.hook_q",
    ),
    part("bias forgotten", "* self.w + self.b", "* self.w", L1="blocks.0.attn.hook_q"),
    part(
        "hook_normalized after the gain and bias",
        "super().__call__(x, tap) * self.w + self.b",
        'tap("hook_normalized", super().__call__(x, tap) * self.w + self.b)',
        L1="blocks.0.ln1.hook_normalized",
    ),
    part(
        "ln1 dropped",
        "self.attn(normalized_BPM,",
        "self.attn(resid_BPM,",
        L1="blocks.0.attn.hook_q",
    ),
    part(
        "ln2 dropped", "self.mlp(normalized_BPM,", "self.mlp(resid_BPM,", L1="blocks.0.mlp.hook_pre"
    ),
    whole("ln_final dropped", "resid_BPM = self.ln_final(", "self.ln_final(", L1="unembed.hook_in"),
    # attention
    part("attention scale missing", " / self.scale", "", L1="blocks.0.attn.hook_attn_scores"),
    part(
        "attention scaled by d_model",
        "cfg.d_head**0.5",
        "cfg.d_model**0.5",
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "mask: no position sees itself",
        "scores_BHQK.shape[-2:], bool)",
        "scores_BHQK.shape[-2:], bool), -1",
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "mask: every position sees the next",
        "scores_BHQK.shape[-2:], bool)",
        "scores_BHQK.shape[-2:], bool), 1",
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "mask of -1e5 for -inf",
        "scores_BHQK, -jnp.inf",
        "scores_BHQK, -1e5",
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "softmax over queries",
        "jax.nn.softmax(scores_BHQK, axis=-1)",
        "jax.nn.softmax(scores_BHQK, axis=-2)",
        L1="blocks.0.attn.hook_pattern",
    ),
    part(
        "softmax in float32",
        "jax.nn.softmax(scores_BHQK, axis=-1)",
        "jax.nn.softmax(scores_BHQK.astype('float32'), axis=-1)",
        L1="blocks.0.attn.hook_pattern",
    ),
    part("pattern transposed", '"bhqk,bkhe->bqhe"', '"bhkq,bkhe->bqhe"', L1="blocks.0.attn.hook_z"),
    part(
        "heads averaged, not added up",
        "z_BPHE, self.W_O)",
        "z_BPHE, self.W_O) / 2",
        L1="blocks.0.hook_attn_out",
    ),
    part(
        "W_O transposed in each head",
        '"bphe,hem->bpm"',
        '"bphe,hme->bpm"',
        SQUARE,
        L1="blocks.0.hook_attn_out",
    ),
    part("b_Q forgotten", "self.W_Q, self.b_Q)", "self.W_Q, 0)", L1="blocks.0.attn.hook_q"),
    part("b_K forgotten", "self.W_K, self.b_K)", "self.W_K, 0)", L1="blocks.0.attn.hook_k"),
    part(
        "b_K forgotten behind its hook",
        "q_BPHE, k_BPHE)",
        "q_BPHE, k_BPHE - self.b_K)",
        L1="blocks.0.attn.hook_attn_scores",
    ),
    part("b_V forgotten", "self.W_V, self.b_V)", "self.W_V, 0)", L1="blocks.0.attn.hook_v"),
    part("b_O forgotten", " + self.b_O", "", L1="blocks.0.hook_attn_out"),
    part(
        "residual skipped around attention",
        "return resid_BPM + attn_out_BPM",
        "return attn_out_BPM",
        L1="blocks.0.hook_resid_mid",
    ),
    part(
        "skip connection of the normalised stream",
        "return resid_BPM + attn_out_BPM",
        "return normalized_BPM + attn_out_BPM",
        L1="blocks.0.hook_resid_mid",
    ),
    # MLP
    part("b_in forgotten", " + self.b_in", "", L1="blocks.0.mlp.hook_pre"),
    part(
        "GELU for ReLU", '"relu": jax.nn.relu', '"relu": jax.nn.gelu', L1="blocks.0.mlp.hook_post"
    ),
    part(
        "tanh's GELU for the exact one",
        "approximate=False",
        "approximate=True",
        GELU,
        L1="blocks.0.mlp.hook_post",
    ),
    part("b_out forgotten", " + self.b_out", "", L1="blocks.0.hook_mlp_out"),
    part(
        "residual skipped around the MLP",
        "resid_BPM + mlp_out_BPM",
        "mlp_out_BPM",
        L1="blocks.0.hook_resid_post",
    ),
    # out
    part("b_U forgotten", " + self.b_U", "", L1="unembed.hook_out"),
    loss(
        "loss in bits",
        "targets[..., None], axis=-1)[..., 0]",
        "targets[..., None], axis=-1)[..., 0] / jnp.log(2)",
        L1="losses",
    ),
    # L2
    part(
        "gradient stopped at the pattern",
        'tap("hook_pattern", pattern_BHQK)',
        'tap("hook_pattern", jax.lax.stop_gradient(pattern_BHQK))',
        L2="blocks.0.attn.hook_attn_scores",
    ),
    part(
        "straight-through ReLU",
        '"relu": jax.nn.relu',
        '"relu": lambda x: x + jax.lax.stop_gradient(jax.nn.relu(x) - x)',
        L2="blocks.0.mlp.hook_pre",
    ),
    part(
        "ReLU with slope 1/2 at 0",
        '"relu": jax.nn.relu',
        '"relu": lambda x: jnp.maximum(x, 0)',
        L2="blocks.0.mlp.hook_pre",
    ),
    part(
        "no gradient through the skip connection",
        "return resid_BPM + attn_out_BPM",
        "return jax.lax.stop_gradient(resid_BPM) + attn_out_BPM",
        L2="blocks.0.hook_resid_pre",
    ),
    part(
        "no gradient through a norm's scale",
        f'tap("hook_scale", {SCALE})',
        f'tap("hook_scale", jax.lax.stop_gradient({SCALE}))',
        L2="blocks.0.hook_resid_post",
    ),
    part(
        "W_pos frozen",
        "self.W_pos[:length]",
        "jax.lax.stop_gradient(self.W_pos[:length])",
        L2="pos_embed.W_pos",
    ),
    part("b_U frozen", "+ self.b_U", "+ jax.lax.stop_gradient(self.b_U[...])", L2="unembed.b_U"),
    part(
        "an edit at hook_resid_mid has no effect",
        'resid_BPM = tap("hook_resid_mid", self.attend(resid_BPM, tap))',
        'resid_BPM = self.attend(resid_BPM, tap)\n        tap("hook_resid_mid", resid_BPM)',
        L2="blocks.0.hook_resid_mid",
    ),
    part(
        "a hook applied twice",
        'self.mlp(normalized_BPM, scoped(tap, "mlp"))',
        'tap("hook_mlp_out", self.mlp(normalized_BPM, scoped(tap, "mlp")))',
        L2="blocks.0.hook_mlp_out",
    ),
    whole(
        "all sequences get the first one's positions",
        'tap("hook_pos_embed", self.pos_embed(tokens_BP))',
        'tap("hook_pos_embed", self.pos_embed(tokens_BP))[:1]',
        L2="hook_pos_embed",
    ),
    # L3
    tap(
        "zeros from a hook taken for no edit",
        'tap(f"{prefix}.{name}", activation)',
        '(lambda edited: jnp.where(edited.any(), edited, activation))(tap(f"{prefix}.{name}", activation))',
        L3="blocks.0.hook_resid_pre",
    ),
    part(
        "norm's scale guarded against zero",
        "x / scale",
        "x / jnp.maximum(scale, self.eps)",
        L3="blocks.0.ln1.hook_scale",
    ),
    part(
        "pattern capped at 1 behind its hook",
        'tap("hook_pattern", pattern_BHQK)',
        'jnp.minimum(tap("hook_pattern", pattern_BHQK), 1.0)',
        L3="blocks.0.attn.hook_pattern",
    ),
    # conversion
    conversion(
        "W_Q and W_K swapped",
        "w",
        "n.translate({ord('Q'): 'K', ord('K'): 'Q'})",
        L1="blocks.0.attn.hook_q",
    ),
    conversion(
        "heads in reverse order",
        "w[::-1] if '.attn.' in n and n != 'blocks.0.attn.b_O' else w",
        L1="blocks.0.attn.hook_q",
    ),
    conversion(
        "W_O's heads in reverse order",
        "w[::-1] if n.endswith('W_O') else w",
        L1="blocks.0.hook_attn_out",
    ),
    conversion(
        "W_O transposed in each head on its way",
        "w.mT if n.endswith('W_O') else w",
        cfg=SQUARE,
        L1="blocks.0.hook_attn_out",
    ),
    conversion("W_in transposed", "w.T if n.endswith('W_in') else w", L1="blocks.0.mlp.hook_pre"),
    conversion(
        "W_Q reshaped instead of transposed",
        "w.reshape(4, 2, 2).swapaxes(0, 1) if n.endswith('W_Q') else w",
        L1="blocks.0.attn.hook_q",
    ),
    conversion(
        "layers in reverse order",
        "w",
        "n.replace('s.0', 's.x').replace('s.1', 's.0').replace('s.x', 's.1')",
        cfg=TWO,
        L1="blocks.0.attn.hook_q",
    ),
    conversion(
        "ln1.w and ln1.b swapped",
        "w",
        "n.replace('n1.w', 'n1.x').replace('n1.b', 'n1.w').replace('n1.x', 'n1.b')",
        L1="blocks.0.attn.hook_q",
    ),
    conversion(
        "W_pos shifted by one",
        "w[[8, *range(8)]] if n.endswith('W_pos') else w",
        L1="hook_pos_embed",
    ),
    conversion("b_V left at zero", "w * (not n.endswith('b_V'))", L1="blocks.0.attn.hook_v"),
    conversion("weights through float16", "w.astype('float16')", L1="hook_embed"),
    conversion("weights through float32", "w.astype('float32')", L1="hook_embed"),
    # optimizer
    adam("no weight decay", ADAMW, f"optax.adam(lr, {NUMBERS})", L4="param"),
    adam(
        "weight decay coupled (L2)",
        ADAMW,
        wrapped(adamw(weight_decay="0.0"), gradient="optax.tree.add_scale(g, wd, p)"),
        L4="param",
    ),
    adam("optax's default weight decay", ADAMW, adamw(weight_decay="1e-4"), L4="param"),
    adam(
        "weight decay not times the learning rate",
        ADAMW,
        adamw(weight_decay="wd / lr"),
        L4="param",
    ),
    adam("epsilon inside its root", ADAMW, adamw("x.b1, x.b2, 0.0, x.eps"), L4="param"),
    adam("epsilon of 1e-6", ADAMW, adamw("x.b1, x.b2, 1e-6"), L4="param"),
    adam(
        "no bias correction",
        ADAMW,
        wrapped(state="(s[0]._replace(count=s[0].count + 10**6), *s[1:])"),
        L4="param",
    ),
    adam(
        "bias correction one step ahead",
        ADAMW,
        wrapped(state="(s[0]._replace(count=s[0].count + 1), *s[1:])"),
        L4="param",
    ),
    adam("b2 of 0.99", ADAMW, adamw("x.b1, 0.99, x.eps"), L4="exp_avg_sq"),
    adam("betas swapped", ADAMW, adamw("x.b2, x.b1, x.eps"), L4="exp_avg"),
    adam("Nesterov", ADAMW, adamw(f"{NUMBERS}, nesterov=True"), L4="param"),
    adam(
        "first moment kept in float32",
        ADAMW,
        adamw(f"{NUMBERS}, mu_dtype='float32'"),
        L4="exp_avg",
    ),
    adam("learning rate off by 1e-9 of itself", "rates.lr", "rates.lr * (1 + 1e-9)", L4="param"),
    adam(
        "a learning rate that decays",
        "rates.lr",
        "lambda count: rates.lr * 0.999**count",
        L4="param",
    ),
    # training
    adam(
        "weight decay on matrices only",
        ADAMW,
        adamw(
            NUMBERS
            + ", mask=lambda ps: {n: p.ndim > 1 for n, p in ps.items()} if isinstance(ps, dict) else True"
        ),
        L5="blocks.0.ln1.w",
    ),
    step(
        "optimizer state forgotten at every step",
        ".update(grads, opt_state, params)",
        ".update(grads, make_optimizer(fixed, rates).init(params), params)",
        L5="embed.W_E",
    ),
    step(
        "gradients computed in float32",
        "mean_loss(cfg, params, batch, objective)",
        "mean_loss(cfg.replace(dtype='float32'), params, batch, objective)",
        L5="embed.W_E",
    ),
    training_loss(
        "loss on all positions",
        "jnp.array(predicted)",
        "jnp.arange(1, tokens.shape[1])",
        L5="embed.W_E",
    ),
    training_loss("loss summed instead of averaged", ").mean()", ").sum()", L5="embed.W_E"),
    training_loss(
        "loss summed over positions, averaged over examples",
        ").mean()",
        ").sum(-1).mean()",
        L5="embed.W_E",
    ),
    training_loss(
        "loss of the current token, not the next",
        "tokens[:, at]",
        "tokens[:, at - 1]",
        L5="embed.W_E",
    ),
    batches(
        "schedule off by one step",
        "start * counts_per_step",
        "(start + 1) * counts_per_step",
        L5="embed.W_E",
    ),
    batches("batches of another seed", 'seed, "batches"', 'seed + 1, "batches"', L5="embed.W_E"),
    batches(
        "batches drawn with replacement",
        "np.where(taken, last, candidate)",
        "candidate",
        L5="embed.W_E",
    ),
    data(
        "trained on the last sequences, not the first",
        "order[: cfg.n_train]",
        "order[-cfg.n_train :]",
        L5="embed.W_E",
    ),
    data(
        "trained on the holdout as well",
        "return np.flatnonzero(self.train_mask)",
        "return np.arange(len(self.tokens))",
        L5="embed.W_E",
    ),
]


@dataclass(frozen=True)
class Found:
    """What the judge said of a mutant: the first level that failed, and where the failure begins."""

    level: str
    place: str


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Within it, a copy of the module with the fault stands in for it, wherever it was imported to."""
    source, right = inspect.getsource(mutant.module), dict(vars(mutant.module))
    assert source.count(mutant.old) == 1, f"{mutant.old!r} is not in {mutant.module.__name__} once"
    wrong = ModuleType(mutant.module.__name__)
    code = compile(source.replace(mutant.old, mutant.new), str(mutant.module.__file__), "exec")
    exec(code, vars(wrong))
    users = [m for name, m in list(sys.modules.items()) if name.split(".")[0] in PACKAGES]
    model.hook_names.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in right if not name.startswith("__")]:
            for user in users:
                if vars(user).get(name) is right[name]:
                    patch.setattr(user, name, vars(wrong)[name])
        yield
    model.hook_names.cache_clear()


@pytest.fixture(scope="module")
def find(random_weights):
    """A function from a mutant to what is found of it; None if it survives. Each is judged once."""
    trajectory = training_levels.torch_trajectory(RECIPE)

    def reference(cfg):
        weights = random_weights(cfg)
        for layer in range(cfg.n_layers):  # a neuron that is always at the kink of its ReLU
            weights[f"blocks.{layer}.mlp.W_in"][:, 0] = 0
            weights[f"blocks.{layer}.mlp.b_in"][0] = 0
        return bridge.to_torch(HookedTransformer(cfg, params=weights))

    def judge(theirs):
        pair = Pair(bridge.from_torch(theirs), theirs, QUESTION)
        yield check_names(pair)
        for name in OF_MODELS[1:]:
            yield check_level(name, pair, "float64")
        yield training_levels.check_optimizer(RECIPE, "float64")
        yield training_levels.check_every_step(RECIPE)

    @functools.cache
    def find(mutant):
        theirs = reference(mutant.cfg)
        with planted(mutant), pytest.MonkeyPatch.context() as patch:
            patch.setattr(training_levels, "torch_trajectory", lambda cfg: trajectory)
            for level in judge(theirs):
                if not level.passed:
                    return Found(level.name, where(level))
        return None

    return find


def where(level):
    """The tensor that the level blames: its diagnosis' if it makes one, else the first that failed."""
    blamed = [re.match(r"first divergence: ([\w.]+)", remark) for remark in level.remarks]
    names = [match[1] for match in blamed if match]
    return (names or [level.failures[0].name.split(": ")[-1]])[0]


def test_there_is_no_difference_where_no_fault_is_planted(find):
    assert (
        find(part("none", "return self.W_E[tokens_BP]", "return self.W_E[tokens_BP]", L0=""))
        is None
    )


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.fault)
def test_the_fault_is_caught_by_its_level_in_its_place(mutant, find):
    found = find(mutant)
    assert found is not None, "the mutant survives"
    assert (found.level, found.place) == (mutant.level, mutant.place)


def test_the_table_in_the_docs_is_what_was_found(find):
    rows = [
        f"| {mutant.fault} | {mutant.kind} | {found.level} | `{found.place}` |"
        for mutant in MUTANTS
        if (found := find(mutant))
    ]
    text = HEAD.format(n=len(rows), levels=levels_in_words()) + "\n".join(rows) + "\n"
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text


def levels_in_words():
    counted = {name: sum(mutant.level == name for mutant in MUTANTS) for name in TITLES}
    return ", ".join(f"{name} {count}" for name, count in counted.items() if count)


HEAD = """\
# The judge can fail

{n} faults, each planted in a copy of the port, its optimizer, its training or the conversion of weights, and what the
judge (`python -m parity check`, float64) says of them: the first level that fails, and the tensor where it says that
the difference begins. Caught by level: {levels}.

Made by a test, which fails if one is not caught, or by another level, or elsewhere:
`WRITE_DOCS=1 python -m pytest -m slow tests/parity/test_mutants.py`.

Out of the judge's reach, and left to tests of their own: what becomes of a query all of whose scores a hook made infinite
(edits leave infinite scores alone), and the loss over all positions that `return_type="loss"` gives.

| fault | planted in | first seen by | where it begins |
|---|---|---|---|
"""
