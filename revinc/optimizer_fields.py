"""The optimizers and learning rate schedules that a training config may name."""

from __future__ import annotations

import math
from collections.abc import Callable

OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "adamw": ("weight_decay", "b1", "b2", "adam_eps"),
    "nadamw": ("weight_decay", "b1", "b2", "adam_eps"),
    "lion": ("weight_decay", "b1", "b2"),
    "adam": ("b1", "b2", "adam_eps"),
    "rmsprop": ("b2", "adam_eps"),
    "sgd": ("momentum",),
}
"""Optimizers by their names in Optax, and the fields of a config that each takes beside `lr`."""

MOMENTS = {"adamw": 2, "nadamw": 2, "lion": 1, "adam": 2, "rmsprop": 1, "sgd": 0}
"""The number of arrays that an optimizer keeps per parameter; `momentum` adds one to ``sgd``."""

HYPERPARAMETERS = tuple(dict.fromkeys(field for taken in OPTIMIZERS.values() for field in taken))
"""The fields that at least one optimizer takes."""

LR_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,  # noqa: ARG005
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
}
"""Schedules: the share of the way from `lr` to `lr_end` that is left when a share of the updates
after the warmup is done.

The cosine is Loshchilov and Hutter's (2017, eq. 5). It and linear reach 0 after the last update.
"""
