"""The optimizer. What a sweep varies is traced, so that another rate needs no other program."""

from __future__ import annotations

from typing import NamedTuple

import optax
from jaxtyping import Array, Float

from revinc import TrainConfig


class Adam(NamedTuple):
    """AdamW's fixed numbers: Python floats, for ``1 - b2`` would lose five digits in float32.

    `cosine_steps` are those over which the learning rate falls to 0; None if it stays.
    """

    b1: float
    b2: float
    eps: float
    cosine_steps: int | None


class Rates(NamedTuple):
    """AdamW's rates: arrays, scalars or with an axis to map over."""

    lr: Float[Array, ""] | float
    weight_decay: Float[Array, ""] | float


def optimizer_numbers(cfg: TrainConfig) -> tuple[Adam, Rates]:
    """The optimizer's numbers in a config."""
    cosine_steps = cfg.steps if cfg.lr_schedule == "cosine" else None
    adam = Adam(cfg.b1, cfg.b2, cfg.adam_eps, cosine_steps)
    return adam, Rates(cfg.lr, cfg.weight_decay)


def make_optimizer(adam: Adam, rates: Rates) -> optax.GradientTransformation:
    """AdamW as torch defines it (Loshchilov and Hutter 2019): decay on every parameter.

    With a schedule the decay follows the learning rate, as it does with torch's schedulers.
    """
    lr = scheduled(rates.lr, adam.cosine_steps)
    return optax.adamw(lr, adam.b1, adam.b2, adam.eps, weight_decay=rates.weight_decay)


def scheduled(
    lr: Float[Array, ""] | float, cosine_steps: int | None
) -> Float[Array, ""] | float | optax.Schedule:
    """What optax takes as a learning rate: a number, or a function of the updates so far."""
    return lr if cosine_steps is None else optax.cosine_decay_schedule(lr, cosine_steps)
