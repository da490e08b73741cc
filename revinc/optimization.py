"""What a config may say of the optimizer: its name, what it takes, and how the learning rate runs."""

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
"""Optimizers by their names in optax, and the fields of a config that each takes beside `lr`."""

HYPERPARAMETERS = tuple(dict.fromkeys(field for taken in OPTIMIZERS.values() for field in taken))
"""The fields that some of them take."""

LR_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,  # noqa: ARG005
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
}
"""The share of `lr` that is left when a share of the updates after the warmup is done.

The cosine is Loshchilov and Hutter's (2017, eq. 5). Both that decay would be 0 after the last update.
"""
