"""The tutorial's loss and predictions in torch, for any task."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from torch_reference.adapter import Model


def predictions(
    model: Model,
    tokens: Int[Tensor, "batch seq"],
    positions: Int[Tensor, " n_positions"],
) -> tuple[Float[Tensor, "batch n_positions d_vocab_out"], Int[Tensor, "batch n_positions"]]:
    """The logits that predict the tokens at `positions`, and those tokens."""
    logits = model(tokens[:, :-1])
    return logits[:, positions - 1], tokens[:, positions]


def token_losses(
    logits: Float[Tensor, "batch n_positions d_vocab_out"],
    targets: Int[Tensor, "batch n_positions"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, "batch n_positions"]:
    """The cross-entropy of each target, in nats."""
    return F.cross_entropy(
        logits.transpose(1, 2), targets, reduction="none", label_smoothing=label_smoothing
    )


def mean_loss(
    model: Model,
    tokens: Int[Tensor, "batch seq"],
    positions: Int[Tensor, " n_positions"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """The training loss: the mean cross-entropy of the tokens at `positions` of every example."""
    return token_losses(*predictions(model, tokens, positions), label_smoothing).mean()
