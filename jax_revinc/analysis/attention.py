"""Statistics of attention patterns, and each head's attention to the tokens that decide answers.

Row r of a pattern is the query at position r, which *predicts* position r + 1. In the tutorial's
task y0..y3 are predicted at rows 4..7 from x3..x0, at columns 4..1: the reversal is
``col = 8 - row``, the cells that ``revinc.tasks.reading_cells(task)`` lists. The tutorial's text is
off by one in places (it asks row 5 for column 4); its observation, that row 5 looks at column 3, is
right. To score the other reading, give other cells.

Patterns are [..., batch, n_heads, query, key] throughout, such as one layer's
``cache["pattern", 0]``. For a single input, give a batch of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.compilation.numerical_settings import computing_in, with_numerics
from jax_revinc.forward.token_checks import Tokens, check_tokens, require_array
from jax_revinc.model import HookedTransformer
from revinc import UserError
from revinc.validation import require_ints

Patterns = Float[Array, "*n_layers batch n_heads query key"]


class AttentionSummary(NamedTuple):
    """Statistics of attention patterns over a batch of inputs.

    Attributes:
        mean: the mean pattern.
        spread: the standard deviation over the inputs; 0 where attention ignores the tokens.
        entropy: the entropy of each row in nats, mean over the inputs; 0 for all attention on one
            position, log(row + 1) for the same on every position.
        preferred: for each row, the position with the most attention on average (the first of
            ties).
        preferred_share: the share of inputs on which that position has the most attention.
    """

    mean: Float[Array, "*n_layers n_heads query key"]
    spread: Float[Array, "*n_layers n_heads query key"]
    entropy: Float[Array, "*n_layers n_heads query"]
    preferred: Int[Array, "*n_layers n_heads query"]
    preferred_share: Float[Array, "*n_layers n_heads query"]


class ReversalScore(NamedTuple):
    """How strongly each head attends to the input tokens that it must read to reverse the input.

    A cell (row, column) of an attention pattern is where the token of an answer is read.

    Attributes:
        attention: the attention on a cell, mean over the inputs.
        largest: the share of inputs on which a cell is its row's largest (the first of ties).
    """

    attention: Float[Array, "*n_layers n_heads cells"]
    largest: Float[Array, "*n_layers n_heads cells"]


def check_patterns(patterns: Patterns | np.ndarray) -> None:
    """Raise a UserError if attention patterns have no batch axis, as those of a single input."""
    require_array("patterns", patterns)
    if patterns.ndim < 4:
        raise UserError(
            f"patterns must have shape [..., batch, head, query, key], not {list(patterns.shape)}; "
            "give one input as a batch of one, pattern[None]"
        )


def precision_of(patterns: Patterns | np.ndarray) -> AbstractContextManager[Any]:
    """A context in which JAX computes in the precision of the given attention patterns."""
    require_array("patterns", patterns)
    return computing_in("float64" if patterns.dtype == np.float64 else "float32")


@with_numerics
def attention_patterns(
    model: HookedTransformer, tokens: Tokens
) -> Float[Array, "n_layers batch n_heads query key"]:
    """The attention pattern of every layer on every input, in one compiled call.

    Args:
        model: the model.
        tokens: the ids fed, [batch, pos].

    Raises:
        UserError: for tokens of a wrong shape, type or range.
    """
    return _patterns(model, check_tokens(model.cfg, tokens))


@with_numerics
def attention_summary(model: HookedTransformer, tokens: Tokens) -> AttentionSummary:
    """Statistics of a model's attention patterns, [n_layers, n_heads, ...], in one compiled call.

    Args:
        model: the model.
        tokens: the ids fed, [batch, pos].

    Raises:
        UserError: for tokens of a wrong shape, type or range.
    """
    return _summary(model, check_tokens(model.cfg, tokens))


def summarize_patterns(patterns: Patterns) -> AttentionSummary:
    """Statistics of attention patterns over the batch: mean, spread, entropy, preferred positions.

    Args:
        patterns: [..., batch, n_heads, query, key].

    Raises:
        UserError: for patterns without a batch axis.
    """
    check_patterns(patterns)
    with precision_of(patterns):
        patterns = jnp.asarray(patterns)
        mean = patterns.mean(-4)
        preferred = mean.argmax(-1)
        is_preferred = patterns.argmax(-1) == jnp.expand_dims(preferred, -3)
        return AttentionSummary(
            mean=mean,
            spread=patterns.std(-4),
            entropy=row_entropy(patterns).mean(-3),
            preferred=preferred,
            preferred_share=is_preferred.mean(-3, dtype=patterns.dtype),
        )


def row_entropy(patterns: Patterns) -> Float[Array, "*n_layers batch n_heads query"]:
    """The entropy of every row of attention patterns in nats, with 0 log 0 = 0."""
    with precision_of(patterns):
        # log(1) replaces log(0), so that gradients stay finite.
        logs = jnp.log(jnp.where(patterns > 0, patterns, 1.0))
        return -(patterns * logs).sum(-1)


def reversal_score(patterns: Patterns, cells: Sequence[tuple[int, int]]) -> ReversalScore:
    """Each head's attention at given (row, column) cells, and how often these are a row's largest.

    Args:
        patterns: [..., batch, n_heads, query, key].
        cells: (row, column) pairs, such as ``revinc.tasks.reading_cells(task)``, in the tutorial's
            task (4, 4), (5, 3), (6, 2), (7, 1).

    Returns:
        Arrays [..., n_heads, cells].

    Raises:
        UserError: if there are no cells, one lies outside the pattern, or there is no batch axis.
    """
    check_patterns(patterns)
    if not isinstance(cells, tuple | list):
        raise UserError(
            f"cells of attention patterns must be a list of (row, column) pairs, not {cells!r}"
        )
    if not cells:
        raise UserError(
            "there are no cells of the attention patterns to score; give at least one "
            "(row, column) pair"
        )
    n_rows, n_columns = patterns.shape[-2:]
    pairs = [require_ints("a cell", cell) for cell in cells]
    if any(len(pair) != 2 for pair in pairs):
        raise UserError(f"cells of attention patterns must be (row, column) pairs, not {cells}")
    for row, column in pairs:
        if not (0 <= row < n_rows and 0 <= column < n_columns):
            raise UserError(
                f"cell ({row}, {column}) lies outside the attention pattern of {n_rows} rows and "
                f"{n_columns} columns"
            )
    rows, columns = np.array(pairs).T
    with precision_of(patterns):
        patterns = jnp.asarray(patterns)
        is_largest = patterns.argmax(-1)[..., rows] == columns
        return ReversalScore(
            attention=patterns[..., rows, columns].mean(-3),
            largest=is_largest.mean(-3, dtype=patterns.dtype),
        )


@jax.jit
def _patterns(
    model: HookedTransformer, tokens: Int[Array, "batch pos"]
) -> Float[Array, "n_layers batch n_heads query key"]:
    _, cache = model.run_with_cache(tokens, return_type=None)
    return jnp.stack([cache["pattern", layer] for layer in range(model.cfg.n_layers)])


@jax.jit
def _summary(model: HookedTransformer, tokens: Int[Array, "batch pos"]) -> AttentionSummary:
    return summarize_patterns(_patterns(model, tokens))
