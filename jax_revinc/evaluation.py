"""Evaluating a model on a task: fed the right tokens, or its own predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.compilation.kept_programs import keepable, run_kept
from jax_revinc.forward.token_checks import check_range, check_sequences
from jax_revinc.model import HookedTransformer
from jax_revinc.objective import predictions, token_losses
from revinc import HookedTransformerConfig, Task, UserError
from revinc.tasks import eval_positions
from revinc.weights import StateDict, parameter_count

BATCH = 4096
"""Sequences that are evaluated at once."""


class Evaluation(NamedTuple):
    """How well a model does a task.

    Attributes:
        loss: the mean cross-entropy of the predicted tokens, in nats.
        accuracy: the share of the predicted tokens that are right.
        sequence_accuracy: the share of the sequences whose predicted tokens are all right.
    """

    loss: float
    accuracy: float
    sequence_accuracy: float


@keepable
class Scores(NamedTuple):
    """The evaluation of each sequence.

    Attributes:
        losses: the cross-entropy of each predicted token, in nats.
        right: whether each predicted token is right.
    """

    losses: Float[Array, "n_sequences n_positions"]
    right: Float[Array, "n_sequences n_positions"]


def evaluate(
    model: HookedTransformer,
    task: Task,
    sequences: Int[np.ndarray, "n_sequences seq"] | None = None,
    *,
    free_running: bool = False,
) -> Evaluation:
    """Evaluate a model on the tokens that a task asks for.

    Args:
        model: the model.
        task: the task.
        sequences: the sequences to evaluate on; by default all of the task's, or its sample if it
            is drawn.
        free_running: feed the model its own predictions in place of the right tokens, as in
            generation: each predicted token is the one of the highest logit. By default the model
            is fed the right tokens (teacher forcing), as in training.

    Raises:
        UserError: if the sequences do not fit the model, or `free_running` is asked of a
            bidirectional model, which sees the tokens that it should predict.
    """
    cfg = model.cfg
    if free_running and not can_run_freely(cfg):
        raise UserError(
            "a model with attention_dir='bidirectional' can't run freely, because it sees the "
            "tokens that it should predict; evaluate it without free_running"
        )
    tokens = np.asarray(check_sequences(cfg, task.sequences() if sequences is None else sequences))
    seq = task.sequences().shape[1]
    if tokens.shape[1] != seq:
        raise UserError(f"sequences of this task have {seq} tokens, not {tokens.shape[1]}")
    check_range(tokens[:, eval_positions(task)], cfg.d_vocab_out, "d_vocab_out")
    params = {name: np.asarray(param) for name, param in model.params.items()}
    return evaluate_weights(cfg, params, task, tokens, free_running=free_running)


def evaluate_weights(
    cfg: HookedTransformerConfig,
    weights: StateDict,
    task: Task,
    sequences: Int[np.ndarray, "n_sequences seq"],
    *,
    free_running: bool = False,
) -> Evaluation:
    """Evaluate weights that are not in JAX yet, on sequences that are known to fit the model.

    Args:
        cfg: the model's config.
        weights: the model's.
        task: the task.
        sequences: the sequences to evaluate on.
        free_running: feed the model its own predictions.
    """
    predicted = eval_positions(task)
    settings = {"predicted": predicted, "free_running": free_running}
    runs = len(predicted) + 1 if free_running else 1
    work = float(parameter_count(cfg) * sequences.size * runs)
    arguments = {"params": weights, "tokens": sequences.astype(np.int32)}
    scores: Scores = run_kept(score, cfg, settings, arguments, work)
    right = scores.right
    return Evaluation(
        float(scores.losses.mean()), float(right.mean()), float(right.all(axis=1).mean())
    )


def can_run_freely(cfg: HookedTransformerConfig) -> bool:
    """Whether a model can be fed its own predictions: only if no position sees a later one."""
    return cfg.attention_dir == "causal"


def has_own_predictions(cfg: HookedTransformerConfig, task: Task) -> bool:
    """Whether running freely can differ from teacher forcing: some prediction is fed again."""
    return can_run_freely(cfg) and len(eval_positions(task)) > 1


def score(
    cfg: HookedTransformerConfig,
    *,
    predicted: Sequence[int],
    free_running: bool,
    params: Mapping[str, Array],
    tokens: Int[Array, "n_sequences seq"],
) -> Scores:
    """Score every predicted token of every sequence, as a function that can be traced.

    Args:
        cfg: the model's config.
        predicted: the positions of the predicted tokens, ascending.
        free_running: feed the model its own predictions.
        params: the model's.
        tokens: the sequences.
    """
    positions, held = tuple(predicted), dict(params)

    def score_sequence(sequence: Int[Array, " seq"]) -> Scores:
        fed = write_own(cfg, held, sequence, positions) if free_running else sequence
        logits, _ = predictions(cfg, held, fed[None], positions)
        targets = sequence[np.array(positions)]
        return Scores(token_losses(logits, targets[None])[0], logits[0].argmax(axis=-1) == targets)

    return jax.lax.map(score_sequence, tokens, batch_size=min(BATCH, len(tokens)))


def write_own(
    cfg: HookedTransformerConfig,
    params: dict[str, Any],
    sequence: Int[Array, " seq"],
    positions: tuple[int, ...],
) -> Int[Array, " seq"]:
    """Replace the tokens at `positions`, one after the other, by the model's predictions."""
    at = jnp.array(positions)

    def write(i: Array, tokens: Int[Array, " seq"]) -> Int[Array, " seq"]:
        logits = HookedTransformer(cfg, params=params)(tokens[None, :-1])[0]
        return tokens.at[at[i]].set(logits[at[i] - 1].argmax().astype(tokens.dtype))

    return jax.lax.fori_loop(0, len(positions), write, sequence)
