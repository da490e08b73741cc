"""Named recipes for the command line."""

from __future__ import annotations

from revinc.config import TrainConfig

PRESETS: dict[str, TrainConfig] = {
    "tutorial": TrainConfig(),
}
