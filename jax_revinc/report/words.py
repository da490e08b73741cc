"""A run in plain words: its task, its model and how it ended."""

from __future__ import annotations

from jax_revinc.training import Run
from revinc import HookedTransformerConfig
from revinc.weights import parameter_count

MLP_OUTS = (
    "What each MLP adds to the residual stream at every position: here a token that attention fetched "
    "can become the answer. Blue is negative, orange positive."
)
MLP_WEIGHTS = (
    "W_in reads the residual stream into the neurons, and W_out writes what they say back into it."
)

NO_SNAPSHOTS = "Train with --snapshots every:100 and a slider here shows the circuit forming, from step to step."
FORMING = (
    "Move the slider to see each head's pattern, the mean over all sequences, as training went on."
)
CIRCUITS = (
    "What the weights do on each path, whatever the input: for each head, which positions its queries ask for (QK) and "
    "which logits a token that it looks at adds to (OV); what each MLP makes of one token; and what a token adds "
    "past all of them (direct path). Norms are folded into the weights, up to their scale."
)
INCREMENTS = (
    "With patterns and norms frozen, every part of a logit has one author. Each map is what a component creates for "
    "the answer's logits, by the token that decides the answer: a component that increments is orange "
    "next to the diagonal, at t + 1 for token t."
)
EFFECTS = (
    "Ablation takes a component's output away and looks at what breaks. Patching runs the model on another "
    "sequence, puts one activation back as it was, and looks at how much of the answer returns: 0 nothing, 1 all. "
    "A path is what one component adds to the input of another."
)
CLAIMS = (
    "Increment: how much a component's map of tokens is t to t + 1 rather than a copy or an amplification of what "
    "it read (1 at most); share: how much of the answers' logits it creates. Necessary: accuracy if it always "
    "writes its mean. Sufficient: how often the answers come back if, on a sequence of other tokens, it alone "
    "writes what it wrote on the right one."
)
CLAIM_COLUMNS = (
    "increment",
    "share",
    "increments",
    "accuracy without",
    "necessary",
    "restored",
    "sufficient",
)


def run_facts(run: Run) -> dict[str, str]:
    """What was trained, how long, on what, and from which seeds."""
    cfg = run.config
    n_sequences = len(cfg.task.sequences())
    split = f"{cfg.n_train:,} train, {n_sequences - cfg.n_train:,} holdout ({cfg.split})"
    seeds = {"weights": cfg.init_seed, "batches": cfg.data_seed}
    if cfg.split == "random":
        seeds["split"] = cfg.split_seed
    if cfg.task.is_drawn:
        split = "examples are drawn as training goes on, and others for the holdout"
        seeds["holdout"] = cfg.split_seed
    return {
        "Model": model_size(cfg.model),
        "Parameters": f"{parameter_count(cfg.model):,}, {cfg.model.dtype}",
        "Split": split,
        "Training": f"{cfg.steps:,} steps of {cfg.batch_size} examples",
        "Seeds": ", ".join(f"{what} {seed}" for what, seed in seeds.items()),
        "Engine": ", ".join(v if k == "name" else f"{k} {v}" for k, v in run.engine.items()),
    }


def model_size(cfg: HookedTransformerConfig) -> str:
    """A model's size in a line."""
    mlp = "no MLPs" if cfg.attn_only else f"d_mlp {cfg.d_mlp}"
    return f"{count(cfg.n_layers, 'layer')}, {count(cfg.n_heads, 'head')} each, d_model {cfg.d_model}, {mlp}"


def count(number: int, thing: str) -> str:
    """A number and its noun."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
