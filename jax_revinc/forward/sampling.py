"""Next tokens drawn from logits, as TransformerLens draws them, with a key for the randomness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray

from jax_revinc.compilation.numerical_settings import keeps_precision
from revinc.errors import UserError
from revinc.validation import require_int, require_number

if TYPE_CHECKING:
    import pandas as pd


@keeps_precision
def sample_logits(
    final_logits: Float[Array, "batch d_vocab_out"],
    top_k: int | None = None,
    top_p: float | None = None,
    temperature: float = 1.0,
    freq_penalty: float = 0.0,
    repetition_penalty: float = 1.0,
    tokens: Int[Array, "batch pos"] | None = None,
    *,
    key: PRNGKeyArray | None = None,
) -> Int[Array, " batch"]:
    """The next token of each sequence: drawn at random, or the likeliest at a temperature of 0.

    Args:
        final_logits: the logits at the last position [batch, d_vocab_out].
        top_k: draw from this many of the likeliest tokens; 1 takes the likeliest.
        top_p: without top_k, draw from the likeliest tokens that together have this probability.
        temperature: the logits are divided by it.
        freq_penalty: taken off a token's logit for each time that it occurs in `tokens`; ignored at
            a temperature of 0.
        repetition_penalty: divides the positive and multiplies the negative logits of all `tokens`.
        tokens: the tokens so far [batch, pos], for the penalties.
        key: a random key, such as ``jax.random.key(0)``. A temperature of 0 or a top_k of 1 needs
            none: of equally likely tokens they take the first.

    Raises:
        UserError: for numbers out of range, or without a key or tokens where they are needed.
    """
    logits = jnp.asarray(final_logits)
    if repetition_penalty != 1.0 and tokens is not None:
        logits = penalize_repetition(logits, counts(tokens, logits), repetition_penalty)
    if temperature == 0.0:
        return logits.argmax(-1)
    if key is None and is_random(temperature, top_k):
        raise UserError(
            "drawing tokens needs a key, such as key=jax.random.key(0); temperature=0 takes the "
            "likeliest token without one"
        )
    logits = logits / require_number("temperature", temperature, above=0)
    if freq_penalty > 0:
        if tokens is None:
            raise UserError("freq_penalty needs the tokens so far; give tokens")
        logits = logits - freq_penalty * counts(tokens, logits)
    if top_k is not None:
        logits = keep_top_k(logits, require_int("top_k", top_k, at_least=1))
    elif top_p is not None:
        if not 0 < require_number("top_p", top_p) <= 1:
            raise UserError(f"top_p must be above 0 and at most 1, not {top_p}")
        logits = keep_top_p(logits, top_p)
    if key is None or not is_random(temperature, top_k):
        return logits.argmax(-1)
    return jax.random.categorical(key, logits.astype(jnp.float32))


def is_random(temperature: float, top_k: int | None) -> bool:
    """Whether a choice of tokens is left to chance."""
    return temperature != 0 and top_k != 1


def counts(
    tokens: Int[Array, "batch pos"], logits: Float[Array, "batch d_vocab_out"]
) -> Float[Array, "batch d_vocab_out"]:
    """How often each token occurs in each sequence."""
    tokens = jnp.asarray(tokens)
    batch = jnp.arange(len(tokens))[:, None]
    return jnp.zeros_like(logits).at[batch, tokens].add(1)


def penalize_repetition(
    logits: Float[Array, "batch d_vocab_out"],
    counts: Float[Array, "batch d_vocab_out"],
    penalty: float,
) -> Float[Array, "batch d_vocab_out"]:
    """Logits in which every token that occurred is less likely.

    Keskar et al. 2019, arXiv:1909.05858, section 4.1.
    """
    penalized = jnp.where(logits > 0, logits / penalty, logits * penalty)
    return jnp.where(counts > 0, penalized, logits)


def keep_top_k(
    logits: Float[Array, "batch d_vocab_out"], k: int
) -> Float[Array, "batch d_vocab_out"]:
    """Logits that are -inf for all but the `k` likeliest tokens, and those equally likely."""
    least_kept = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][..., -1:]
    return jnp.where(logits < least_kept, -jnp.inf, logits)


def keep_top_p(
    logits: Float[Array, "batch d_vocab_out"], p: float
) -> Float[Array, "batch d_vocab_out"]:
    """Logits that are -inf for all but the fewest likeliest tokens with a probability of `p`.

    Holtzman et al. 2020, arXiv:1904.09751, section 3.1.
    """
    order = jnp.argsort(-logits, axis=-1)
    probs = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
    enough_before = jnp.cumsum(probs, axis=-1)[..., :-1] > p
    removed = jnp.pad(enough_before, [(0, 0)] * (logits.ndim - 1) + [(1, 0)])
    rank = jnp.argsort(order, axis=-1)
    return jnp.where(jnp.take_along_axis(removed, rank, axis=-1), -jnp.inf, logits)


@keeps_precision
def logits_to_df(
    logits: Float[Array, " d_vocab_out"], tokenizer: Any = None, top_k: int | None = None
) -> pd.DataFrame:
    """A table of tokens, likeliest first: index, logit, log probability and probability.

    Args:
        logits: the logits at one position [d_vocab_out].
        tokenizer: anything whose ``decode([index])`` is a token's text, for the column
            "token_string"; without it there is no such column.
        top_k: the most rows.
    """
    import pandas as pd

    log_probs = np.asarray(jax.nn.log_softmax(jnp.asarray(logits)))
    order = np.argsort(-log_probs, kind="stable")[:top_k]
    table = pd.DataFrame({"token_index": order})
    if tokenizer is not None:
        table["token_string"] = [tokenizer.decode([int(index)]) for index in order]
    table["logit"] = np.asarray(logits)[order]
    table["log_prob"] = log_probs[order]
    table["probability"] = np.exp(log_probs[order])
    return table
