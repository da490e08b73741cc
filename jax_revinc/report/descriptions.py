"""Facts about runs and models in words, for their pages."""

from __future__ import annotations

from collections.abc import Mapping

from jax_revinc.training import Run
from revinc import HookedTransformerConfig
from revinc.config_summary import model_size
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
        "Engine": identity_words(run.engine),
    }


def identity_words(engine: Mapping[str, str]) -> str:
    """An engine's identity in words, such as ``xla, platform cpu, jax 0.10.2``."""
    fields = {name: value for name, value in engine.items() if name != "name"}
    if fields.get("device") == fields.get("platform"):
        fields.pop("device", None)
    return ", ".join([engine["name"], *(f"{name} {value}" for name, value in fields.items())])


def model_facts(cfg: HookedTransformerConfig) -> dict[str, str]:
    """A dict of facts about a model, as text by title: its sizes, and its parameters."""
    return {
        "Model": model_size(cfg),
        "Parameters": f"{parameter_count(cfg):,}, {cfg.dtype}",
    }
