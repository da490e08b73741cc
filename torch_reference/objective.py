"""The tutorial's loss and predictions, for any task."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from torch_reference.adapter import Model


def predictions(
    model: Model,
    tokens: Int[Tensor, "batch seq"],
    predicted: Int[Tensor, " n_predicted"],
) -> tuple[Float[Tensor, "batch n_predicted d_vocab_out"], Int[Tensor, "batch n_predicted"]]:
    """The logits that predict the tokens at positions `predicted`, and those tokens."""
    logits = model(tokens[:, :-1])
    return logits[:, predicted - 1], tokens[:, predicted]


def token_losses(
    logits: Float[Tensor, "batch n_predicted d_vocab_out"],
    targets: Int[Tensor, "batch n_predicted"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, "batch n_predicted"]:
    """Cross-entropy of each predicted token, in nats."""
    return F.cross_entropy(
        logits.transpose(1, 2), targets, reduction="none", label_smoothing=label_smoothing
    )


def mean_loss(
    model: Model,
    tokens: Int[Tensor, "batch seq"],
    predicted: Int[Tensor, " n_predicted"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """The training loss: mean cross-entropy over every predicted token of every example."""
    return token_losses(*predictions(model, tokens, predicted), label_smoothing).mean()
