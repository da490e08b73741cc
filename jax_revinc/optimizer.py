"""The optimizer. What a sweep varies is traced, so that another rate needs no other program."""

from __future__ import annotations

from typing import NamedTuple

import optax
from jaxtyping import Array, Float

from revinc import TrainConfig


class Adam(NamedTuple):
    """AdamW's fixed numbers: Python floats, for ``1 - b2`` would lose five digits in float32."""

    b1: float
    b2: float
    eps: float


class Rates(NamedTuple):
    """AdamW's rates: arrays, scalars or with an axis to map over."""

    lr: Float[Array, ""] | float
    weight_decay: Float[Array, ""] | float


def optimizer_numbers(cfg: TrainConfig) -> tuple[Adam, Rates]:
    """The optimizer's numbers in a config."""
    return Adam(cfg.b1, cfg.b2, cfg.adam_eps), Rates(cfg.lr, cfg.weight_decay)


def make_optimizer(adam: Adam, rates: Rates) -> optax.GradientTransformation:
    """AdamW as torch defines it (Loshchilov and Hutter 2019): decay on every parameter."""
    return optax.adamw(rates.lr, *adam, weight_decay=rates.weight_decay)
