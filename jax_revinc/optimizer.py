"""The optimizer. What a sweep varies is traced, so that another rate needs no other program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import optax
from jaxtyping import Array, Float

from revinc import TrainConfig
from revinc.weights import without_effect

Rate = Float[Array, ""] | float


class Schedule(NamedTuple):
    """How the learning rate runs: see `TrainConfig.learning_rate`. `decay_steps` is None if it stays."""

    name: str
    warmup_steps: int
    decay_steps: int | None


CONSTANT = Schedule("constant", warmup_steps=0, decay_steps=None)


class Fixed(NamedTuple):
    """What is compiled in: Python floats, for ``1 - b2`` would lose five digits in float32."""

    optimizer: str
    b1: float
    b2: float
    eps: float
    momentum: float
    clip_grad_norm: float | None
    schedule: Schedule
    without_effect: frozenset[str]


class Rates(NamedTuple):
    """What is traced: arrays, scalars or with an axis to map over."""

    lr: Rate
    weight_decay: Rate


def optimizer_numbers(cfg: TrainConfig) -> tuple[Fixed, Rates]:
    """The optimizer's numbers in a config."""
    decay_steps = None if cfg.lr_schedule == "constant" else cfg.steps - cfg.warmup_steps
    fixed = Fixed(
        cfg.optimizer,
        cfg.b1,
        cfg.b2,
        cfg.adam_eps,
        cfg.momentum,
        cfg.clip_grad_norm,
        Schedule(cfg.lr_schedule, cfg.warmup_steps, decay_steps),
        without_effect(cfg.model),
    )
    return fixed, Rates(cfg.lr, cfg.weight_decay)


Constructor = Callable[[Rate | optax.Schedule, Rate, Fixed], optax.GradientTransformation]

OPTIMIZERS: dict[str, Constructor] = {
    "adamw": lambda lr, wd, x: optax.adamw(lr, x.b1, x.b2, x.eps, weight_decay=wd),
    "nadamw": lambda lr, wd, x: optax.nadamw(lr, x.b1, x.b2, x.eps, weight_decay=wd),
    "lion": lambda lr, wd, x: optax.lion(lr, x.b1, x.b2, weight_decay=wd),
    "adam": lambda lr, _, x: optax.adam(lr, x.b1, x.b2, x.eps),
    "rmsprop": lambda lr, _, x: optax.rmsprop(lr, x.b2, x.eps, eps_in_sqrt=False),
    "sgd": lambda lr, _, x: optax.sgd(lr, x.momentum or None),
}
"""Each of `revinc.optimization.OPTIMIZERS`. RMSprop's epsilon is outside its root, as in torch."""


def make_optimizer(fixed: Fixed, rates: Rates) -> optax.GradientTransformation:
    """The recipe's optimizer of a dict of parameters; its numbers are torch's of that name, where torch has it.

    Weight decay is decoupled (Loshchilov and Hutter 2019) and on every parameter, but for those without effect,
    which torch leaves as they are. With a schedule it follows the learning rate, as it does with torch's schedulers.
    """
    lr = scheduled(rates.lr, fixed.schedule)
    parts = [OPTIMIZERS[fixed.optimizer](lr, rates.weight_decay, fixed)]
    if fixed.clip_grad_norm is not None:
        parts = [optax.clip_by_global_norm(fixed.clip_grad_norm), *parts]
    if fixed.without_effect:
        parts = [*parts, optax.masked(optax.set_to_zero(), partial(among, fixed.without_effect))]
    return optax.chain(*parts)


def among(chosen: frozenset[str], params: Mapping[str, object]) -> dict[str, bool]:
    """A mask of parameters: those that are chosen."""
    return {name: name in chosen for name in params}


def linear(begin: Rate, end: Rate, n_steps: int) -> optax.Schedule:
    """optax's, given a float: a count divided by an integer is a float32, even where float64 is on."""
    return optax.linear_schedule(begin, end, float(n_steps))


SCHEDULES: dict[str, Callable[[Rate, Any], optax.Schedule]] = {
    "constant": lambda lr, _: optax.constant_schedule(lr),
    "cosine": optax.cosine_decay_schedule,
    "linear": lambda lr, decay_steps: linear(lr, 0.0, decay_steps),
}
"""Each of `revinc.optimization.LR_SCHEDULES`."""


def scheduled(lr: Rate, schedule: Schedule) -> Rate | optax.Schedule:
    """What optax takes as a learning rate: a number, or a function of the updates so far."""
    if schedule == CONSTANT:
        return lr
    after_warmup = SCHEDULES[schedule.name](lr, schedule.decay_steps)
    if not schedule.warmup_steps:
        return after_warmup
    warmup = linear(0.0, lr, schedule.warmup_steps)
    return optax.join_schedules([warmup, after_warmup], [schedule.warmup_steps])
