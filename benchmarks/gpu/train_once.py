"""One training in a process of its own, for the stage of equal bits."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jax

from jax_revinc import train
from revinc import TrainConfig
from revinc.runs import WEIGHTS


def train_once(cfg: dict[str, Any], folder: str) -> dict[str, str]:
    """Train a run by XLA, compiled anew; return a hash of its file of weights, and its device.

    Args:
        cfg: a training config, as `TrainConfig.to_dict` returns it.
        folder: the run folder.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    run = train(TrainConfig.from_dict(cfg), folder, engine="xla")
    content = (Path(folder) / WEIGHTS).read_bytes()
    return {"hash": hashlib.sha256(content).hexdigest(), "device": run.engine["device"]}
