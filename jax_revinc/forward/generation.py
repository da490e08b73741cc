"""Continuing sequences of tokens by a model's own predictions, in one compiled loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.forward.arguments import Asked, Inputs
from jax_revinc.forward.sampling import is_random, sample_logits
from jax_revinc.forward.token_checks import check_tokens
from jax_revinc.hooks.taps import applying
from revinc.errors import UserError
from revinc.validation import require_choice, require_int, require_ints


@dataclass(frozen=True)
class Sampling:
    """How the next tokens are chosen, and how many."""

    max_new_tokens: int
    stop_tokens: tuple[int, ...]
    """Tokens after which a sequence goes on with the first of them."""
    temperature: float
    top_k: int | None
    top_p: float | None
    freq_penalty: float

    @property
    def filler(self) -> int:
        """The token that ended sequences are filled up with."""
        return (*self.stop_tokens, 0)[0]


class Generation:
    """The part of a model that continues sequences."""

    @with_numerics
    def generate(
        self,
        input: Any,
        max_new_tokens: int = 10,
        stop_at_eos: bool = True,
        eos_token_id: int | Sequence[int] | None = None,
        do_sample: bool = True,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float = 1.0,
        freq_penalty: float = 0.0,
        use_past_kv_cache: bool = True,
        prepend_bos: bool | None = None,  # noqa: ARG002
        padding_side: str | None = None,  # noqa: ARG002
        return_type: str = "input",
        verbose: bool = True,  # noqa: ARG002
        *,
        key: PRNGKeyArray | None = None,
    ) -> Int[Array, "batch pos_plus_new_tokens"]:
        """Continue sequences of token ids, as ``generate`` of TransformerLens 3.9.

        It runs the whole sequence for every new token, so hooks see all positions at each step, and
        are traced.

        Args:
            input: token ids [batch, pos] or [pos].
            max_new_tokens: the most tokens to add.
            stop_at_eos: stop when every sequence has ended, and fill the others up with
                `eos_token_id`.
            eos_token_id: the token, or tokens, that end a sequence.
            do_sample: draw tokens at random, or else take the likeliest one.
            top_k: draw from this many of the likeliest tokens; 1 takes the likeliest.
            top_p: without top_k, draw from the likeliest tokens that together have this probability.
            temperature: the logits are divided by it; 0 takes the likeliest token.
            freq_penalty: taken off a token's logit for each time that it has occurred.
            use_past_kv_cache: without effect on a causal model. A bidirectional model must leave
                it out, as its earlier positions see the new tokens.
            prepend_bos, padding_side, verbose: without effect.
            return_type: "input" or "tokens".
            key: a random key, such as ``jax.random.key(0)``, to draw with.

        Returns:
            The sequences with their new tokens. Under ``jit`` they have the full length.

        Raises:
            UserError: for arguments out of range, too few positions, outputs that are no inputs, or no
                key to draw with.
        """
        model: Any = self
        require_choice("return_type", return_type, ("input", "tokens"))
        tokens_BP = check_tokens(model.cfg, input)
        sampling = Sampling(
            max_new_tokens=require_int("max_new_tokens", max_new_tokens, at_least=1),
            stop_tokens=ends(eos_token_id) if stop_at_eos else (),
            temperature=float(temperature) if do_sample else 0.0,
            top_k=top_k,
            top_p=top_p,
            freq_penalty=freq_penalty,
        )
        check_length(model.cfg, tokens_BP.shape[1], max_new_tokens)
        if model.cfg.d_vocab_out > model.cfg.d_vocab:
            raise UserError(
                "this model can't continue its own output: it has tokens that are no inputs, since "
                f"d_vocab_out={model.cfg.d_vocab_out} is larger than d_vocab={model.cfg.d_vocab}"
            )
        if model.cfg.attention_dir != "causal" and use_past_kv_cache:
            raise UserError(
                "earlier positions of a bidirectional model see new tokens, so their keys can't be "
                "kept; pass use_past_kv_cache=False"
            )
        if key is None and is_random(sampling.temperature, top_k):
            raise UserError(
                "drawing tokens needs a key: pass key=jax.random.key(0), or do_sample=False"
            )
        key = jax.random.key(0) if key is None else key
        grown = _generate(sampling, model, tokens_BP, key)
        is_traced = isinstance(grown.length, jax.core.Tracer)
        return grown.tokens if is_traced else grown.tokens[:, : int(grown.length)]


def ends(eos_token_id: Any) -> tuple[int, ...]:
    """The tokens that end a sequence.

    Raises:
        UserError: if there are none.
    """
    if eos_token_id is None:
        raise UserError(
            "stop_at_eos needs an eos_token_id, as there is no tokenizer: give one, or pass "
            "stop_at_eos=False"
        )
    is_one = isinstance(eos_token_id, int | np.integer)
    return require_ints("eos_token_id", [eos_token_id] if is_one else eos_token_id)


def check_length(cfg: Any, length: int, n_new: int) -> None:
    """Raise a UserError if sequences of this length can't be continued by so many tokens."""
    if length + n_new - 1 > cfg.n_ctx:
        raise UserError(
            f"{n_new} new tokens after {length} need a context of {length + n_new - 1}, but "
            f"n_ctx={cfg.n_ctx}; ask for at most {cfg.n_ctx - length + 1}"
        )


class Growing(NamedTuple):
    """Sequences while tokens are added."""

    tokens: Int[Array, "batch pos"]
    """The sequences in their full length; what is not there yet holds the first stop token."""
    ended: Bool[Array, " batch"]
    length: Any
    """The number of tokens that are there."""


@partial(jax.jit, static_argnums=0)
def _generate(
    sampling: Sampling, model: Any, tokens_BP: Int[Array, "batch pos"], key: PRNGKeyArray
) -> Growing:
    batch, length = tokens_BP.shape
    missing = jnp.full((batch, sampling.max_new_tokens), sampling.filler, tokens_BP.dtype)
    whole_BP = jnp.concatenate([tokens_BP, missing], axis=1)
    begin = Growing(whole_BP, jnp.zeros(batch, bool), jnp.asarray(length))
    tap = applying(model._handles, model.hook_point)

    def all_logits(tokens_BP: Int[Array, "batch pos"]) -> Float[Array, "batch pos d_vocab_out"]:
        return model.compute(Inputs(tokens_BP), Asked(), tap)  # type: ignore[no-any-return]

    def grow(growing: Growing, logits_BV: Float[Array, "batch d_vocab_out"]) -> Growing:
        return add_token(sampling, growing, logits_BV, jax.random.fold_in(key, growing.length))

    def goes_on(growing: Growing) -> Bool[Array, ""]:
        is_short = growing.length < length + sampling.max_new_tokens
        return is_short & ~growing.ended.all()

    if model.cfg.attention_dir == "causal":  # no logits depend on what is not there yet
        return jax.lax.while_loop(
            goes_on,
            lambda growing: grow(
                growing, all_logits(growing.tokens[:, :-1])[:, growing.length - 1]
            ),
            begin,
        )
    growing = begin
    for there in range(length, length + sampling.max_new_tokens):
        grown = grow(growing, all_logits(growing.tokens[:, :there])[:, -1])
        is_same = ~goes_on(growing)
        growing = jax.tree.map(partial(jnp.where, is_same), growing, grown)
    return growing


def add_token(
    sampling: Sampling,
    growing: Growing,
    logits_BV: Float[Array, "batch d_vocab_out"],
    key: PRNGKeyArray,
) -> Growing:
    """The sequences with one more token each, given the logits at their last position."""
    tokens_BP, ended_B, length = growing
    is_there_P = jnp.arange(tokens_BP.shape[1]) < length
    seen_BP = jnp.where(is_there_P, tokens_BP, logits_BV.shape[-1])  # others do not count
    new_B = sample_logits(
        logits_BV,
        sampling.top_k,
        sampling.top_p,
        sampling.temperature,
        sampling.freq_penalty,
        tokens=seen_BP,
        key=key,
    )
    new_B = jnp.where(ended_B, sampling.filler, new_B).astype(tokens_BP.dtype)
    ended_B = ended_B | jnp.isin(new_B, jnp.asarray(sampling.stop_tokens, new_B.dtype))
    return Growing(tokens_BP.at[:, length].set(new_B), ended_B, length + 1)
