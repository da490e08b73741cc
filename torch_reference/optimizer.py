"""torch's optimizers that equal Optax' of the same name, and gradient clipping as in Optax."""

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
"""torch's optimizers that update like Optax' of the same name.

torch has no Lion, and its NAdam has Dozat's schedule of the momentum, which Optax' has not.
"""


def require_counterpart(cfg: TrainConfig) -> None:
    """Raise a UserError if torch has no counterpart of a config's optimizer."""
    if cfg.optimizer not in COUNTERPARTS:
        raise UserError(
            f"optimizer={cfg.optimizer!r} has no counterpart in torch; choose one of "
            f"{', '.join(COUNTERPARTS)}, or train with jax-revinc only"
        )


def make_optimizer(parameters: Iterable[torch.Tensor], cfg: TrainConfig) -> Optimizer:
    """Make the torch optimizer of `parameters` that a training config names.

    Raises:
        UserError: if torch has no counterpart.
    """
    require_counterpart(cfg)
    return COUNTERPARTS[cfg.optimizer](parameters, cfg)


@torch.no_grad()
def clip_gradients(parameters: Iterable[torch.Tensor], largest_norm: float) -> None:
    """Scale all gradients by one factor so that their joint norm is at most `largest_norm`.

    This is ``optax.clip_by_global_norm`` (Pascanu et al. 2013, algorithm 1).
    `torch.nn.utils.clip_grad_norm_` differs: it adds 1e-6 to the norm that it divides by.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if norm >= largest_norm:
        for gradient in gradients:
            gradient.mul_(largest_norm / norm)
