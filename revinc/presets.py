"""Named recipes for the command line."""

from __future__ import annotations

from revinc.config import TUTORIAL_MODEL, TrainConfig
from revinc.model_config import HookedTransformerConfig
from revinc.tasks import ModularAddition

PRESETS: dict[str, TrainConfig] = {
    "tutorial": TrainConfig(),
    # Generalises from the tutorial's split where the tutorial's recipe seldom does; the README says how often.
    # Twice as wide a residual stream, and an optimizer whose decay and noise are strong first and end at zero.
    "reliable": TrainConfig(
        model=TUTORIAL_MODEL.replace(d_model=8, initializer_range=0.1),
        lr=5e-2,
        lr_schedule="cosine",
        weight_decay=0.1,
        b2=0.95,
    ),
    # Modular addition as Nanda et al. (2023, arXiv:2301.05217) trained it: every step sees all of the training split.
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
