"""The arguments of a forward pass, as TransformerLens 3.9 names them: checked, and split in two.

A forward pass is a function of arrays (`Inputs`) that does what it is asked (`Asked`). The second part
is hashable, so a compiled program can be kept for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.components.key_value_cache import TransformerLensKeyValueCache
from jax_revinc.components.positions import PaddedPositions, Positions
from jax_revinc.forward.token_checks import check_range, check_tokens
from revinc import HookedTransformerConfig, UserError
from revinc.validation import require_choice

ReturnType = Literal["logits", "loss", "both"] | None
RETURN_TYPES = ("logits", "loss", "both", None)


class Inputs(NamedTuple):
    """The arrays that a forward pass computes with."""

    tokens: Int[Array, "batch pos"] | None
    """Token ids: what is embedded, and what the loss is about."""
    residual: Float[Array, "batch pos d_model"] | None = None
    """The residual stream to start with, instead of embeddings."""
    shortformer_pos_embed: Float[Array, "batch pos d_model"] | None = None
    """What shortformer models add to the inputs of queries and keys, if the stream is given."""
    attention_mask: Int[Array, "batch pos"] | None = None
    """1 for tokens, 0 for padding. With a residual stream it counts cached tokens too."""
    past_kv_cache: TransformerLensKeyValueCache | None = None
    """Keys and values of the tokens before these."""

    def positions(self) -> Positions:
        """Where the tokens stand; a cache is told which of them are padding."""
        mask, cache = self.attention_mask, self.past_kv_cache
        if cache is not None and mask is not None and self.residual is None:
            mask = cache.append_attention_mask(mask)
        return Positions(cache) if mask is None else PaddedPositions(mask, cache)


@dataclass(frozen=True)
class Asked:
    """What a forward pass computes."""

    return_type: ReturnType = "logits"
    loss_per_token: bool = False
    start_at_layer: int | None = None
    stop_at_layer: int | None = None

    @property
    def layers(self) -> slice:
        """The blocks that run, as a slice of all."""
        return slice(self.start_at_layer, self.stop_at_layer)

    @property
    def has_loss(self) -> bool:
        """Whether the next-token loss is computed."""
        return self.stop_at_layer is None and self.return_type in ("loss", "both")


def read_arguments(
    cfg: HookedTransformerConfig,
    input: Any,
    return_type: ReturnType = "logits",
    loss_per_token: bool = False,
    prepend_bos: bool | None = None,  # noqa: ARG001
    padding_side: str | None = None,  # noqa: ARG001
    start_at_layer: int | None = None,
    tokens: Any = None,
    shortformer_pos_embed: Any = None,
    attention_mask: Any = None,
    stop_at_layer: int | None = None,
    past_kv_cache: TransformerLensKeyValueCache | None = None,
) -> tuple[Inputs, Asked]:
    """Check the arguments of `HookedTransformer.__call__`, which describes them.

    Raises:
        UserError: for a wrong type, shape or range, or arguments that exclude each other.
    """
    require_choice("return_type", return_type, RETURN_TYPES)
    asked = Asked(
        return_type,
        bool(loss_per_token),
        layer_index("start_at_layer", start_at_layer),
        layer_index("stop_at_layer", stop_at_layer),
    )
    residual: Array | None = None
    ids: Array | None = None
    if start_at_layer is None:
        ids = check_tokens(cfg, input, from_end=True)
        if tokens is not None or shortformer_pos_embed is not None:
            raise UserError(
                "tokens and shortformer_pos_embed go with start_at_layer, where the input is a "
                "residual stream; leave them out"
            )
    else:
        residual = check_stream(cfg, "the input with start_at_layer", input)
        if tokens is not None:
            ids = check_tokens(cfg, tokens)
        if asked.has_loss and ids is None:
            raise UserError("a loss with start_at_layer needs the tokens: give tokens=[batch, pos]")
        if shortformer_pos_embed is not None:
            shortformer_pos_embed = check_stream(
                cfg, "shortformer_pos_embed", shortformer_pos_embed
            )
    if asked.has_loss and ids is not None and cfg.d_vocab_out < cfg.d_vocab:
        check_range(ids[:, 1:], cfg.d_vocab_out, "d_vocab_out")
    given: Any = ids if residual is None else residual
    batch, length = given.shape[:2]
    n_masked = length
    if past_kv_cache is not None:
        check_cache(cfg, past_kv_cache, batch, length)
        if residual is not None:
            n_masked += past_kv_cache.n_positions
        elif attention_mask is None:
            attention_mask = np.ones((batch, length), np.int32)
    mask = None if attention_mask is None else check_mask(attention_mask, (batch, n_masked))
    return Inputs(ids, residual, shortformer_pos_embed, mask, past_kv_cache), asked


def layer_index(what: str, layer: Any) -> int | None:
    """The index of a layer, negative ones from the end, or None.

    Raises:
        UserError: if it is another type.
    """
    if layer is None or (isinstance(layer, int | np.integer) and not isinstance(layer, bool)):
        return layer if layer is None else int(layer)
    raise UserError(f"{what} must be the index of a layer, an integer, not {layer!r}")


def check_stream(
    cfg: HookedTransformerConfig, what: str, stream: Any
) -> Float[Array, "batch pos d_model"]:
    """Check a residual stream.

    Raises:
        UserError: if it is no array of floats [batch, pos, d_model].
    """
    array = jnp.asarray(stream)
    if (
        array.ndim != 3
        or array.shape[2] != cfg.d_model
        or not jnp.issubdtype(array.dtype, jnp.floating)
    ):
        raise UserError(
            f"{what} must be floats [batch, pos, d_model={cfg.d_model}], not {array.dtype} "
            f"{list(array.shape)}"
        )
    return array.astype(cfg.dtype)


def check_mask(attention_mask: Any, shape: tuple[int, int]) -> Int[Array, "batch pos"]:
    """Check an attention mask: 1 for tokens, 0 for padding.

    Raises:
        UserError: if it has another shape.
    """
    mask = jnp.asarray(attention_mask)
    if mask.shape != shape:
        raise UserError(f"attention_mask must have shape {list(shape)}, not {list(mask.shape)}")
    return mask.astype(jnp.int32)


def check_cache(
    cfg: HookedTransformerConfig, cache: TransformerLensKeyValueCache, batch: int, length: int
) -> None:
    """Check that keys and values of earlier tokens go before a batch of `length` new ones.

    Raises:
        UserError: if they are of another model or batch, or leave no room for the new tokens.
    """
    if not isinstance(cache, TransformerLensKeyValueCache):
        raise UserError(
            "past_kv_cache must be a TransformerLensKeyValueCache, such as "
            "TransformerLensKeyValueCache.init_cache(cfg, batch_size=batch)"
        )
    kept = len(cache.previous_attention_mask)
    if kept != batch or len(cache.entries) != cfg.n_layers:
        raise UserError(
            f"past_kv_cache holds {len(cache.entries)} layers and {kept} sequences; the model has "
            f"{cfg.n_layers} layers, and the input {batch} sequences"
        )
    if cache.n_positions + length > cfg.n_ctx:
        raise UserError(
            f"{cache.n_positions} cached and {length} new tokens are longer than n_ctx={cfg.n_ctx}, "
            "the model's context"
        )
