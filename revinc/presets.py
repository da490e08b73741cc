"""Named recipes for the command line."""

from __future__ import annotations

from revinc.config import TUTORIAL_MODEL, TrainConfig

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
}
