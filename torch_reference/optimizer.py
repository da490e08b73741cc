"""torch's optimizers for the names of optax's, and the clipping that both have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from revinc import TrainConfig, UserError

COUNTERPARTS: dict[str, Callable[[Iterable[torch.Tensor], TrainConfig], Optimizer]] = {
    "adamw": lambda parameters, cfg: AdamW(
        parameters, cfg.lr, (cfg.b1, cfg.b2), cfg.adam_eps, cfg.weight_decay
    ),
    "adam": lambda parameters, cfg: Adam(parameters, cfg.lr, (cfg.b1, cfg.b2), cfg.adam_eps),
    "rmsprop": lambda parameters, cfg: RMSprop(parameters, cfg.lr, cfg.b2, cfg.adam_eps),
    "sgd": lambda parameters, cfg: SGD(parameters, cfg.lr, cfg.momentum),
}
"""The optimizers whose updates are those of optax's of that name.

torch has no Lion, and its NAdam follows Dozat's schedule of the momentum, which optax's leaves out.
"""


def require_counterpart(cfg: TrainConfig) -> None:
    """Raise a UserError unless torch has the optimizer of a run."""
    if cfg.optimizer not in COUNTERPARTS:
        raise UserError(
            f"optimizer={cfg.optimizer!r} has no counterpart in torch; choose one of "
            f"{', '.join(COUNTERPARTS)}, or train it with jax-revinc alone"
        )


def make_optimizer(parameters: Iterable[torch.Tensor], cfg: TrainConfig) -> Optimizer:
    """The optimizer of a run, which moves `parameters`.

    Raises:
        UserError: if torch has none such.
    """
    require_counterpart(cfg)
    return COUNTERPARTS[cfg.optimizer](parameters, cfg)


@torch.no_grad()
def clip_gradients(parameters: Iterable[torch.Tensor], largest_norm: float) -> None:
    """Scale all gradients together down to `largest_norm`, if their norm is larger.

    As ``optax.clip_by_global_norm`` does (Pascanu et al. 2013, algorithm 1), not quite as
    `torch.nn.utils.clip_grad_norm_`: that divides by 1e-6 more than the norm.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if norm >= largest_norm:
        for gradient in gradients:
            gradient.mul_(largest_norm / norm)
