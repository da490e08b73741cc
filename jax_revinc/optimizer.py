"""The optimizer, from the config."""

from __future__ import annotations

import optax

from revinc import TrainConfig


def make_optimizer(cfg: TrainConfig) -> optax.GradientTransformation:
    """AdamW as torch defines it (Loshchilov and Hutter 2019): decay on every parameter."""
    return optax.adamw(
        cfg.lr, b1=cfg.b1, b2=cfg.b2, eps=cfg.adam_eps, weight_decay=cfg.weight_decay
    )
