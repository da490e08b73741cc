"""Optax optimizers from a training config.

An optimizer has two parts: an `OptimizerSpec`, which is compiled in, and `Hyperparameters`, which
are traced, so that the models of a population share one program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import optax
from jaxtyping import Array, Float

from revinc import TrainConfig
from revinc.weights import without_effect

Scalar = Float[Array, ""] | float


class Schedule(NamedTuple):
    """A schedule of the learning rate: its name, and how many updates warmup and decay take.

    Attributes:
        name: one of `SCHEDULES`.
        warmup_steps: updates over which the rate first rises.
        decay_steps: updates over which it then falls; None if it is constant.
    """

    name: str
    warmup_steps: int
    decay_steps: int | None


CONSTANT = Schedule("constant", warmup_steps=0, decay_steps=None)


class OptimizerSpec(NamedTuple):
    """The constants of an optimizer, which are compiled into its programs.

    They are Python floats: in float32 ``1 - b2`` would lose five digits.

    Attributes:
        optimizer: one of `OPTIMIZERS`.
        b1: the decay of the first moment.
        b2: the decay of the second moment.
        eps: added to the square root of the second moment.
        momentum: the share of the last update that SGD keeps.
        clip_grad_norm: the norm above which gradients are scaled down, if any.
        schedule: the course of the learning rate.
        without_effect: the parameters that no output depends on, which are not updated.
    """

    optimizer: str
    b1: float
    b2: float
    eps: float
    momentum: float
    clip_grad_norm: float | None
    schedule: Schedule
    without_effect: frozenset[str]


class Hyperparameters(NamedTuple):
    """The numbers of an optimizer that JAX traces, so that other values need no new compilation.

    Each is a scalar, or an array with an axis of models to map over.
    """

    lr: Scalar
    weight_decay: Scalar
    lr_end: Scalar


def optimizer_settings(cfg: TrainConfig) -> tuple[OptimizerSpec, Hyperparameters]:
    """A config's optimizer settings: constants to compile in, and numbers that JAX traces."""
    spec = OptimizerSpec(
        optimizer=cfg.optimizer,
        b1=cfg.b1,
        b2=cfg.b2,
        eps=cfg.adam_eps,
        momentum=cfg.momentum,
        clip_grad_norm=cfg.clip_grad_norm,
        schedule=Schedule(
            name=cfg.lr_schedule,
            warmup_steps=cfg.warmup_steps,
            decay_steps=None if cfg.lr_schedule == "constant" else cfg.steps - cfg.warmup_steps,
        ),
        without_effect=without_effect(cfg.model),
    )
    return spec, Hyperparameters(*(getattr(cfg, name) for name in Hyperparameters._fields))


Constructor = Callable[
    [OptimizerSpec, Scalar | optax.Schedule, Scalar], optax.GradientTransformation
]

OPTIMIZERS: dict[str, Constructor] = {
    "adamw": lambda spec, lr, wd: optax.adamw(lr, spec.b1, spec.b2, spec.eps, weight_decay=wd),
    "nadamw": lambda spec, lr, wd: optax.nadamw(lr, spec.b1, spec.b2, spec.eps, weight_decay=wd),
    "lion": lambda spec, lr, wd: optax.lion(lr, spec.b1, spec.b2, weight_decay=wd),
    "adam": lambda spec, lr, _: optax.adam(lr, spec.b1, spec.b2, spec.eps),
    "rmsprop": lambda spec, lr, _: optax.rmsprop(lr, spec.b2, spec.eps, eps_in_sqrt=False),
    "sgd": lambda spec, lr, _: optax.sgd(lr, spec.momentum or None),
}
"""The optimizers of `revinc.optimizer_fields`, from constants, learning rate and weight decay.

RMSprop's epsilon is outside its root, as in torch.
"""


def make_optimizer(
    spec: OptimizerSpec, hyperparameters: Hyperparameters
) -> optax.GradientTransformation:
    """An Optax optimizer; it updates as torch's optimizer of the same name, if torch has one.

    Weight decay is decoupled (Loshchilov and Hutter 2019) and applies to every parameter, except
    those without effect, which torch does not update. With a schedule it follows the learning rate,
    as with torch's schedulers.

    Args:
        spec: the optimizer's constants.
        hyperparameters: its traced numbers, scalars.
    """
    lr = scheduled(hyperparameters.lr, hyperparameters.lr_end, spec.schedule)
    parts = [OPTIMIZERS[spec.optimizer](spec, lr, hyperparameters.weight_decay)]
    if spec.clip_grad_norm is not None:
        parts = [optax.clip_by_global_norm(spec.clip_grad_norm), *parts]
    if spec.without_effect:
        parts = [*parts, optax.masked(optax.set_to_zero(), partial(among, spec.without_effect))]
    return optax.chain(*parts)


def among(chosen: frozenset[str], params: Mapping[str, object]) -> dict[str, bool]:
    """A mask of parameters by name: True for the chosen names, False for others."""
    return {name: name in chosen for name in params}


def linear(begin: Scalar, end: Scalar, n_steps: int) -> optax.Schedule:
    """Optax' linear schedule, computed in the type of `begin` and `end`, not in float32."""
    return optax.linear_schedule(begin, end, float(n_steps))  # an integer would give float32


def cosine(begin: Scalar, end: Scalar, n_steps: int) -> optax.Schedule:
    """A cosine decay from `begin` to `end`; unlike in Optax' own, `begin` may be 0."""
    decay = optax.cosine_decay_schedule(begin - end, n_steps)
    return lambda count: decay(count) + end


SCHEDULES: dict[str, Callable[[Scalar, Scalar, Any], optax.Schedule]] = {
    "constant": lambda lr, _end, _steps: optax.constant_schedule(lr),
    "cosine": cosine,
    "linear": linear,
}
"""The schedules of `revinc.optimizer_fields.LR_SCHEDULES`: from both rates and decay steps."""


def scheduled(lr: Scalar, lr_end: Scalar, schedule: Schedule) -> Scalar | optax.Schedule:
    """The learning rate for Optax: a number, or a function of the number of updates."""
    if schedule == CONSTANT:
        return lr
    after_warmup = SCHEDULES[schedule.name](lr, lr_end, schedule.decay_steps)
    if not schedule.warmup_steps:
        return after_warmup
    warmup = linear(0.0, lr, schedule.warmup_steps)
    return optax.join_schedules([warmup, after_warmup], [schedule.warmup_steps])
