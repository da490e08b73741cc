"""Heads whose attention has a known pattern, found as by TransformerLens' `detect_head`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.activations.activation_cache import ActivationCache
from jax_revinc.compilation.numerical_settings import keeps_precision, with_numerics
from jax_revinc.forward.token_checks import check_tokens
from jax_revinc.model import HookedTransformer
from jax_revinc.utils import is_lower_triangular, is_square
from revinc.errors import UserError, shown
from revinc.validation import require_choice, require_int

logger = logging.getLogger(__name__)

HeadName = Literal["previous_token_head", "duplicate_token_head", "induction_head"]
HEAD_NAMES = list(get_args(HeadName))
ErrorMeasure = Literal["abs", "mul"]
LayerHeadTuple: TypeAlias = tuple[int, int]
LayerToHead: TypeAlias = Mapping[int, Sequence[int]]


@with_numerics
def detect_head(
    model: HookedTransformer,
    seq: Any,
    detection_pattern: HeadName | Float[Array, "pos pos"],
    heads: Sequence[LayerHeadTuple] | LayerToHead | None = None,
    cache: ActivationCache | None = None,
    *,
    exclude_bos: bool = False,
    exclude_current_token: bool = False,
    error_measure: ErrorMeasure = "mul",
) -> Float[Array, "n_layers n_heads"]:
    """How well the attention of each head fits a pattern: the mean over sequences; 1 is a full fit.

    Args:
        model: the model.
        seq: token ids [pos] or [batch, pos], or a list of sequences, which may differ in length.
        detection_pattern: the name of a kind of heads, or the attention that they would have
            [query, key], of zeros and ones for the measure "mul".
        heads: the heads to look at, as (layer, head) pairs or as lists of heads by layer. All
            others have a score of -1.
        cache: the activations of the one sequence, without a batch axis, to save a forward pass.
        exclude_bos: leave out the attention to the first token.
        exclude_current_token: leave out the attention of each token to itself.
        error_measure: "mul": the share of the attention that is where the pattern is 1; "abs": 1
            minus the mean difference to the pattern.

    Raises:
        UserError: for text, a sequence of one token, a pattern that is no lower triangular matrix
            of the sequence's length, unknown names or heads, or a cache of several sequences.
    """
    require_choice("error_measure", error_measure, get_args(ErrorMeasure))
    sequences = split_sequences(model, seq)
    if cache is not None and len(sequences) > 1:
        raise UserError("a cache holds one sequence; give one, or leave the cache out")
    asked_LH = asked_heads(model, heads)
    scores_LH = sum(
        score_heads(
            patterns_of(model, tokens, cache),
            find_pattern(detection_pattern, tokens, error_measure),
            exclude_bos,
            exclude_current_token,
            error_measure,
        )
        for tokens in sequences
    )
    return jnp.where(asked_LH, scores_LH / len(sequences), -1.0)


def split_sequences(model: HookedTransformer, seq: Any) -> list[Int[Array, "1 pos"]]:
    """Check token ids, and return each sequence as a batch of one.

    Raises:
        UserError: for text, or a sequence of one token.
    """
    if holds_text(seq):
        raise UserError("detect_head takes token ids, since these models have no tokenizer")
    if isinstance(seq, list | tuple) and len({np.size(each) for each in seq}) > 1:
        rows = [check_tokens(model.cfg, each) for each in seq]
    else:
        tokens = check_tokens(model.cfg, seq)
        rows = [tokens[i : i + 1] for i in range(len(tokens))]
    if any(tokens.shape[1] < 2 for tokens in rows):
        raise UserError("a sequence needs at least two tokens to have a pattern of attention")
    return rows


def holds_text(seq: Any) -> bool:
    """Whether a sequence, or one of several, is text."""
    return isinstance(seq, str) or (
        isinstance(seq, list | tuple) and any(isinstance(each, str) for each in seq)
    )


def asked_heads(
    model: HookedTransformer, heads: Sequence[LayerHeadTuple] | LayerToHead | None
) -> np.ndarray:
    """Which heads are asked for [n_layers, n_heads].

    Raises:
        UserError: for a head that does not exist.
    """
    cfg = model.cfg
    if heads is None:
        return np.ones((cfg.n_layers, cfg.n_heads), bool)
    pairs: Iterable[LayerHeadTuple] = (
        ((layer, head) for layer, of_layer in heads.items() for head in of_layer)
        if isinstance(heads, Mapping)
        else heads
    )
    asked = np.zeros((cfg.n_layers, cfg.n_heads), bool)
    for layer, head in pairs:
        layer = require_int("a layer of heads", layer, at_least=0, below=cfg.n_layers)
        asked[layer, require_int("a head", head, at_least=0, below=cfg.n_heads)] = True
    return asked


def patterns_of(
    model: HookedTransformer, tokens: Int[Array, "1 pos"], cache: ActivationCache | None
) -> Float[Array, "n_layers n_heads query key"]:
    """The attention patterns of one sequence, of all heads."""
    if cache is None:
        _, cache = model.run_with_cache(tokens, return_type=None, remove_batch_dim=True)
    return jnp.stack([cache["pattern", layer] for layer in range(model.cfg.n_layers)])


def find_pattern(
    detection_pattern: Any, tokens: Int[Array, "1 pos"], error_measure: ErrorMeasure
) -> Float[Array, "query key"]:
    """The pattern to look for in a sequence, by its name or as it is given.

    Raises:
        UserError: for an unknown name, or a pattern that is no lower triangular matrix of the
            sequence's length.
    """
    if isinstance(detection_pattern, str):
        require_choice("detection_pattern", detection_pattern, HEAD_NAMES)
        return DETECTION_PATTERNS[detection_pattern](tokens)
    pattern, length = jnp.asarray(detection_pattern), tokens.shape[-1]
    if isinstance(pattern, jax.core.Tracer):
        fits = pattern.shape == (length, length)
    else:
        fits = is_lower_triangular(pattern) and len(pattern) == length
        if error_measure == "mul" and not np.isin(pattern, (0, 1)).all():
            logger.warning("the pattern holds other values than 0 and 1; use error_measure='abs'")
    if not fits:
        raise UserError(
            f"detection_pattern must be a lower triangular matrix [{length}, {length}] for a "
            f"sequence of {length} tokens, not {shown(pattern)}"
        )
    return pattern


@keeps_precision
def score_heads(
    attention: Float[Array, "*heads query key"],
    detection_pattern: Float[Array, "query key"],
    exclude_bos: bool,
    exclude_current_token: bool,
    error_measure: ErrorMeasure,
) -> Float[Array, "*heads"]:
    """How well each attention pattern fits `detection_pattern`; see `detect_head`."""
    length = attention.shape[-1]
    counted_QK = np.ones((length, length), bool)
    counted_QK[:, 0] &= not exclude_bos
    np.fill_diagonal(counted_QK, counted_QK.diagonal() & (not exclude_current_token))
    if error_measure == "mul":
        attention = attention * counted_QK
        return (attention * detection_pattern).sum((-2, -1)) / attention.sum((-2, -1))
    difference = jnp.abs(attention - detection_pattern) * counted_QK
    return 1 - jnp.round(difference.sum((-2, -1)) / length, 3)


def compute_head_attention_similarity_score(
    attention_pattern: Float[Array, "query key"],
    detection_pattern: Float[Array, "query key"],
    *,
    exclude_bos: bool,
    exclude_current_token: bool,
    error_measure: ErrorMeasure,
) -> Float[Array, ""]:
    """How well one attention pattern fits another; the arguments are those of `detect_head`.

    Raises:
        UserError: for an attention pattern that is no square matrix.
    """
    if not is_square(attention_pattern):
        raise UserError(f"attention_pattern must be a square matrix, not {attention_pattern.shape}")
    return score_heads(
        attention_pattern, detection_pattern, exclude_bos, exclude_current_token, error_measure
    )


def get_previous_token_head_detection_pattern(
    tokens: Int[Array, "1 pos"],
) -> Float[Array, "pos pos"]:
    """The attention of a previous-token head: from each token to the one before it."""
    return jnp.eye(tokens.shape[-1], k=-1)


def get_duplicate_token_head_detection_pattern(
    tokens: Int[Array, "1 pos"],
) -> Float[Array, "pos pos"]:
    """The attention of a duplicate-token head: to earlier places of the same token."""
    tokens_P = jnp.asarray(tokens).reshape(-1)
    return jnp.tril(tokens_P[:, None] == tokens_P, k=-1).astype(float)


def get_induction_head_detection_pattern(tokens: Int[Array, "1 pos"]) -> Float[Array, "pos pos"]:
    """The attention of an induction head: to what came after earlier places of the same token."""
    duplicates_PP = get_duplicate_token_head_detection_pattern(tokens)
    return jnp.tril(jnp.pad(duplicates_PP[:, :-1], [(0, 0), (1, 0)]))


DETECTION_PATTERNS = {
    "previous_token_head": get_previous_token_head_detection_pattern,
    "duplicate_token_head": get_duplicate_token_head_detection_pattern,
    "induction_head": get_induction_head_detection_pattern,
}
"""The function from tokens to the pattern of each kind of heads."""


def get_supported_heads() -> None:
    """Print the kinds of heads that `detect_head` knows by name."""
    print(f"Supported heads: {HEAD_NAMES}")
