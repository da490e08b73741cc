"""Presets: training configs that a user can choose by name, such as the tutorial's."""

from __future__ import annotations

from revinc.config import TUTORIAL_MODEL, TrainConfig
from revinc.model_config import HookedTransformerConfig
from revinc.tasks import ModularAddition

PRESETS: dict[str, TrainConfig] = {
    "tutorial": TrainConfig(),
    # Generalises from the tutorial's split, as the tutorial's config seldom does: see docs/results.md.
    # Its residual stream is twice as wide, and its learning rate is high first and falls to 0.
    "reliable": TrainConfig(
        model=TUTORIAL_MODEL.replace(d_model=8, initializer_range=0.1),
        lr=5e-2,
        lr_schedule="cosine",
        weight_decay=0.1,
        b2=0.95,
    ),
    # Modular addition as in Nanda et al. (2023, arXiv:2301.05217): a batch is the training split.
    "grokking": TrainConfig(
        model=HookedTransformerConfig(
            n_layers=1,
            d_model=128,
            d_head=32,
            n_heads=4,
            d_mlp=512,
            n_ctx=3,
            d_vocab=114,
            d_vocab_out=113,
            act_fn="relu",
            normalization_type=None,
        ),
        task=ModularAddition(),
        split="random",
        train_fraction=0.3,
        steps=7_000,
        batch_size=round(0.3 * 113**2),
        lr=1e-3,
        weight_decay=1.0,
        b2=0.98,
    ),
}
