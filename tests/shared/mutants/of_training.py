"""Faults in the conversion of weights, in the optimizer and in training."""

from __future__ import annotations

from dataclasses import replace

from mutants.planting import MODEL, RECIPE, SQUARE, Mutant, family, planting, training

from jax_revinc import objective, optimizer
from jax_revinc.engines import xla
from parity import bridge
from revinc import TrainConfig, batch_schedule, dataset, philox

adam = planting("optimizer", optimizer)
training_loss = planting("training", objective)
step = planting("training", xla)
batches = planting("training", batch_schedule)
data = planting("training", dataset)
random_numbers = planting("training", philox)


def conversion(
    fault: str, weight: str, name: str = "n", recipe: TrainConfig = RECIPE, **found: str
) -> Mutant:
    """A fault in how a weight `w` of name `n` comes from TransformerLens: as this expression, by that name."""
    read = "adapter.read_weights(model, cfg)"
    converted = f"{{{name}: {weight} for n, w in {read}.items()}}"
    return planting("conversion", bridge)(fault, read, converted, recipe, **found)


NUMBERS = "spec.b1, spec.b2, spec.eps"
ADAMW = f"optax.adamw(lr, {NUMBERS}, weight_decay=wd)"


def adamw(numbers: str = NUMBERS, weight_decay: str = "wd") -> str:
    """Our optimizer with other numbers."""
    return f"optax.adamw(lr, {numbers}, weight_decay={weight_decay})"


def wrapped(optimizer: str = ADAMW, gradient: str = "g", state: str = "s") -> str:
    """An optimizer, given something else for the gradient or for its state."""
    update = f"lambda g, s, p: inner.update({gradient}, {state}, p)"
    return f"(lambda inner: optax.GradientTransformation(inner.init, {update}))({optimizer})"


TWO = training(MODEL.replace(n_layers=2))
RMSPROP = replace(RECIPE, optimizer="rmsprop", weight_decay=0.0)
SGD = replace(RECIPE, optimizer="sgd", momentum=0.9, weight_decay=0.0)
CLIPPED = replace(RECIPE, clip_grad_norm=1.0)
DECAYING = replace(RECIPE, lr_schedule="cosine", lr_end=5e-3)
WARMED_UP = replace(RECIPE, warmup_steps=8)
SPLIT_AT_RANDOM = replace(RECIPE, split="random")
SMOOTHED = replace(RECIPE, label_smoothing=0.1)

MUTANTS = [
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
        recipe=SQUARE,
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
        recipe=TWO,
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
    adam("epsilon inside its root", ADAMW, adamw("spec.b1, spec.b2, 0.0, spec.eps"), L4="param"),
    adam("epsilon of 1e-6", ADAMW, adamw("spec.b1, spec.b2, 1e-6"), L4="param"),
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
    adam("b2 of 0.99", ADAMW, adamw("spec.b1, 0.99, spec.eps"), L4="exp_avg_sq"),
    adam("betas swapped", ADAMW, adamw("spec.b2, spec.b1, spec.eps"), L4="exp_avg"),
    adam("Nesterov", ADAMW, adamw(f"{NUMBERS}, nesterov=True"), L4="param"),
    adam(
        "first moment kept in float32",
        ADAMW,
        adamw(f"{NUMBERS}, mu_dtype='float32'"),
        L4="exp_avg",
    ),
    adam(
        "learning rate off by 1e-9 of itself",
        "scheduled(hyperparameters.lr,",
        "scheduled(hyperparameters.lr * (1 + 1e-9),",
        L4="param",
    ),
    adam(
        "a learning rate that decays",
        "scheduled(hyperparameters.lr,",
        "scheduled(lambda count: hyperparameters.lr * 0.999**count,",
        L4="param",
    ),
    adam(
        "a decay to 0 whatever lr_end is",
        "hyperparameters.lr_end",
        "0.0",
        DECAYING,
        L4="param",
    ),
    adam(
        "RMSprop's epsilon inside its root",
        "eps_in_sqrt=False",
        "eps_in_sqrt=True",
        RMSPROP,
        L4="param",
    ),
    adam("Nesterov's momentum", "spec.momentum or None", "spec.momentum, True", SGD, L4="param"),
    adam(
        "every number of a gradient clipped, not its norm",
        "optax.clip_by_global_norm(",
        "optax.clip(",
        CLIPPED,
        L4="param",
    ),
    adam(
        "updates clipped, not gradients",
        "[optax.clip_by_global_norm(spec.clip_grad_norm), *parts]",
        "[*parts, optax.clip_by_global_norm(spec.clip_grad_norm)]",
        CLIPPED,
        L4="param",
    ),
    # training
    adam(
        "warm-up one step longer",
        "linear(0.0, lr, schedule.warmup_steps)",
        "linear(0.0, lr, schedule.warmup_steps + 1)",
        WARMED_UP,
        L5="embed.W_E",
    ),
    adam(
        "alibi: W_pos, which has no effect, decays",
        "if spec.without_effect:",
        "if False:",
        family("alibi"),
        L5="pos_embed.W_pos",
    ),
    training_loss(
        "labels smoothed twice as much",
        "smooth_labels(one_hot, label_smoothing)",
        "smooth_labels(one_hot, 2 * label_smoothing)",
        SMOOTHED,
        L5="embed.W_E",
    ),
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
        ".update(grads, make_optimizer(spec, hyperparameters).init(params), params)",
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
        "first, end = positions[0]",
        "positions = range(1, tokens.shape[1])\n    first, end = positions[0]",
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
        "tokens[:, first:end]",
        "tokens[:, first - 1 : end - 1]",
        L5="embed.W_E",
    ),
    training_loss(
        "positions behind the last attention one too early",
        "first - 1 : end - 1",
        "first - 2 : end - 2",
        L5="embed.W_E",
    ),
    training_loss(
        "other positions dropped before the last attention, not behind it",
        '"resid_mid"',
        '"resid_pre"',
        L5="embed.W_E",
    ),
    training_loss(
        "other positions dropped behind the first attention, not the last",
        "cfg.n_layers - 1",
        "0",
        TWO,
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
    batches(
        "Floyd's candidates one too few",
        "uniform[slot] * (last + 1)",
        "uniform[slot] * last",
        L5="embed.W_E",
    ),
    random_numbers(
        "random words of the next count",
        "np.array([start, 0, 0, 0]",
        "np.array([start + 1, 0, 0, 0]",
        L5="embed.W_E",
    ),
    data(
        "a random split by the largest words, not the smallest",
        'np.argsort(words, kind="stable")',
        'np.argsort(words, kind="stable")[::-1]',
        SPLIT_AT_RANDOM,
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
