"""What both models of a parity check are given: tokens, loss positions, activation edits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from jax_revinc.forward.token_checks import check_predicted, check_range, check_tokens
from revinc import UserError

Tensors = dict[str, np.ndarray]

UNLIKELY_LOSSES = "losses of the least likely tokens"
"""The name in L1 of the losses of `parity.torch_side.least_likely`."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The tokens that both models are run on, and the positions whose loss counts.

    Attributes:
        tokens: whole sequences; the models are fed all but the last token.
        predicted: the positions whose token's loss counts; never the first.
    """

    tokens: Int[np.ndarray, "batch seq"]
    predicted: tuple[int, ...]

    def sample(self, n_sequences: int) -> Inputs:
        """The same with at most `n_sequences` of the sequences, drawn at random, always the same."""
        n = len(self.tokens)
        drawn = np.random.default_rng(0).permutation(n)[:n_sequences]
        return replace(self, tokens=self.tokens[np.sort(drawn)])


def make_inputs(tokens: Any, predicted: Any = None) -> Inputs:
    """Check tokens and positions given by a user, and make the inputs of both models from them.

    Args:
        tokens: ids [batch, seq], an array or nested lists.
        predicted: positions in 1..seq-1; all but the first by default.

    Raises:
        UserError: for tokens of another shape or type, or positions that do not exist.
    """
    try:
        ids = np.array(tokens)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"tokens must be an array of ids [batch, seq]: {error}") from error
    if ids.ndim != 2 or not len(ids) or ids.shape[1] < 2:
        raise UserError(
            "tokens must have shape [batch, seq], batch at least 1 and seq at least 2, not "
            f"{list(ids.shape)}"
        )
    chosen = range(1, ids.shape[1]) if predicted is None else predicted
    return Inputs(ids, check_predicted(chosen, ids.shape[1]))


def require_inputs_fit(inputs: Inputs, cfg: Any) -> None:
    """Raise a UserError unless a model with the config `cfg` can be run on the tokens."""
    check_tokens(cfg, inputs.tokens[:, :-1])
    check_range(inputs.tokens[:, list(inputs.predicted)], cfg.d_vocab_out, "d_vocab_out")


@dataclass(frozen=True)
class Edit:
    """An edit of an activation at a hook, by which an intervention changes a model's outputs.

    Its finite entries become ``keep * activation + other * (the activation on the next input) +
    add * direction``, where the direction is a fixed vector along the last axis.
    """

    name: str
    keep: float = 0.0
    other: float = 0.0
    add: float = 0.0


EDITS = (
    Edit("zero"),
    Edit("replace by another input's", other=1.0),
    Edit("scale", keep=1.7),
    Edit("add a vector", keep=1.0, add=1.0),
)


def direction(width: int) -> np.ndarray:
    """The fixed vector [width] that an intervention adds to an activation: numbers in [-1, 1]."""
    return np.cos(np.arange(1, width + 1, dtype=np.float64)).astype(np.float32)
