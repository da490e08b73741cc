"""Where the heads look: patterns over many inputs, and whether they read the reversed positions.

Row r of a pattern is the query at position r, which *predicts* position r + 1. In the tutorial's task
y0..y3 are predicted at rows 4..7 from x3..x0, at columns 4..1: the reversal is ``col = 8 - row``, the
cells that ``revinc.tasks.reading_cells(task)`` lists. The tutorial's text is off by one in places (it
asks row 5 for column 4); its observation, that row 5 looks at column 3, is right. To score the other
reading, give other cells.

Patterns are [..., batch, head, query, key] throughout: one layer's ``cache["pattern", 0]`` will do, and
a batch of one gives the numbers of that input.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.model import HookedTransformer, Tokens, check_tokens
from jax_revinc.numerics import with_numerics
from revinc import HookedTransformerConfig, UserError

Patterns = Float[Array, "*layer batch head query key"]


class AttentionSummary(NamedTuple):
    """Patterns over a batch of inputs.

    Attributes:
        mean: the mean pattern.
        spread: its standard deviation over the inputs; 0 where attention ignores what the tokens are.
        entropy: of a row, in nats, mean over the inputs; 0 if it looks at one position, log(row + 1) if at
            all alike.
        preferred: the position with the most attention on average, for each row (ties: the first).
        preferred_share: the share of inputs on which that position has the most attention.
    """

    mean: Float[Array, "*layer head query key"]
    spread: Float[Array, "*layer head query key"]
    entropy: Float[Array, "*layer head query"]
    preferred: Int[Array, "*layer head query"]
    preferred_share: Float[Array, "*layer head query"]


class ReversalScore(NamedTuple):
    """How much heads look at given cells, in the order of the cells.

    Attributes:
        attention: the attention on the cell, mean over the inputs.
        largest: the share of inputs on which the cell is its row's largest (ties: the first is).
    """

    attention: Float[Array, "*layer head cell"]
    largest: Float[Array, "*layer head cell"]


def check_patterns(patterns: Patterns | np.ndarray) -> None:
    """Raise a UserError if there is no batch: heads would be taken for inputs."""
    if patterns.ndim < 4:
        raise UserError(
            f"patterns must have shape [..., batch, head, query, key], not {list(patterns.shape)}; "
            "give one input as a batch of one, pattern[None]"
        )


def precision_of(patterns: Patterns | np.ndarray) -> AbstractContextManager[Any]:
    """Within it JAX computes in float64 if the patterns are float64: no config is there to say so."""
    return jax.enable_x64(True) if patterns.dtype == np.float64 else nullcontext()


@with_numerics
def attention_patterns(
    model: HookedTransformer, tokens: Tokens
) -> Float[Array, "layer batch head query key"]:
    """The attention pattern of every layer on every input, in one compiled call.

    Args:
        tokens: what the model is fed, [batch, pos].

    Raises:
        UserError: for tokens of a wrong shape, type or range.
    """
    return _patterns(model.cfg, model.params, check_tokens(model.cfg, tokens))


@with_numerics
def attention_summary(model: HookedTransformer, tokens: Tokens) -> AttentionSummary:
    """`summarize_patterns` of a model's patterns: arrays [layer, head, ...], in one compiled call.

    Args:
        tokens: what the model is fed, [batch, pos].

    Raises:
        UserError: for tokens of a wrong shape, type or range.
    """
    return _summary(model.cfg, model.params, check_tokens(model.cfg, tokens))


def summarize_patterns(patterns: Patterns) -> AttentionSummary:
    """Mean, spread, entropy and preferences over the batch.

    Args:
        patterns: [..., batch, head, query, key].

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


def row_entropy(patterns: Patterns) -> Float[Array, "*layer batch head query"]:
    """The entropy of every row in nats, with 0 log 0 = 0."""
    with precision_of(patterns):
        # log(1) stands in for log(0), so that gradients stay finite.
        logs = jnp.log(jnp.where(patterns > 0, patterns, 1.0))
        return -(patterns * logs).sum(-1)


def reversal_score(patterns: Patterns, cells: Sequence[tuple[int, int]]) -> ReversalScore:
    """How much each head looks at `cells`, and how often they are their rows' largest.

    Args:
        patterns: [..., batch, head, query, key].
        cells: (row, column) pairs, such as ``revinc.tasks.reading_cells(task)``, in the tutorial's task
            (4, 4), (5, 3), (6, 2), (7, 1).

    Returns:
        Arrays [..., head, cell].

    Raises:
        UserError: if there are no cells, one lies outside the pattern, or there is no batch axis.
    """
    check_patterns(patterns)
    if not cells:
        raise UserError("no cells to score; this task names no position that decides an answer")
    n_rows, n_columns = patterns.shape[-2:]
    for row, column in cells:
        if not (0 <= row < n_rows and 0 <= column < n_columns):
            raise UserError(
                f"cell ({row}, {column}) lies outside the pattern of {n_rows} rows and {n_columns} columns"
            )
    rows, columns = np.array(cells).T
    with precision_of(patterns):
        patterns = jnp.asarray(patterns)
        is_largest = patterns.argmax(-1)[..., rows] == columns
        return ReversalScore(
            attention=patterns[..., rows, columns].mean(-3),
            largest=is_largest.mean(-3, dtype=patterns.dtype),
        )


@functools.partial(jax.jit, static_argnames="cfg")
def _patterns(
    cfg: HookedTransformerConfig, params: dict[str, Array], tokens: Int[Array, "batch pos"]
) -> Float[Array, "layer batch head query key"]:
    _, cache = HookedTransformer(cfg, params=params).run_with_cache(tokens, return_type=None)
    return jnp.stack([cache["pattern", layer] for layer in range(cfg.n_layers)])


@functools.partial(jax.jit, static_argnames="cfg")
def _summary(
    cfg: HookedTransformerConfig, params: dict[str, Array], tokens: Int[Array, "batch pos"]
) -> AttentionSummary:
    return summarize_patterns(_patterns(cfg, params, tokens))
