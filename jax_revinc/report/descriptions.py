"""Facts about runs and models in words, for their pages."""

from __future__ import annotations

from jax_revinc.training import Run
from revinc import HookedTransformerConfig
from revinc.config_summary import model_size
from revinc.number_format import percentage
from revinc.weights import parameter_count


def run_facts(run: Run) -> dict[str, str]:
    """A dict of facts about a run, as text by title: model, split, training, seeds, engine."""
    cfg = run.config
    n_sequences = len(cfg.task.sequences())
    split = f"{cfg.n_train:,} train, {n_sequences - cfg.n_train:,} holdout ({cfg.split})"
    seeds = {"weights": cfg.init_seed, "batches": cfg.data_seed}
    if cfg.split == "random":
        seeds["split"] = cfg.split_seed
    if cfg.task.is_drawn:
        split = "fresh examples are drawn during training, and others for the holdout"
        seeds["holdout"] = cfg.split_seed
    return {
        **model_facts(cfg.model),
        "Split": split,
        "Training": f"{cfg.steps:,} steps of {cfg.batch_size} examples",
        "Seeds": ", ".join(f"{name} {seed}" for name, seed in seeds.items()),
        "Engine": ", ".join(v if k == "name" else f"{k} {v}" for k, v in run.engine.items()),
    }


def model_facts(cfg: HookedTransformerConfig) -> dict[str, str]:
    """A dict of facts about a model, as text by title: its sizes, and its parameters."""
    return {
        "Model": model_size(cfg),
        "Parameters": f"{parameter_count(cfg):,}, {cfg.dtype}",
    }


def percent(share: float) -> str:
    """A share as a percentage, such as ``99.99%`` or ``100%``."""
    return "100%" if share == 1 else percentage(share)
