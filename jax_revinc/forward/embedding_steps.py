"""The steps from the embeddings of tokens to the first block's input, as methods of a model."""

from __future__ import annotations

from typing import Any

from jax import Array
from jaxtyping import Float, Int

from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.components.key_value_cache import TransformerLensKeyValueCache
from jax_revinc.components.positions import PaddedPositions, Positions
from jax_revinc.forward.arguments import check_cache, check_mask, check_stream
from jax_revinc.hooks.taps import applying
from revinc import HookedTransformerConfig, UserError
from revinc.validation import require_int


class EmbeddingSteps:
    """The part of a model that adds positions to embeddings; `input_to_embed` does all at once."""

    cfg: HookedTransformerConfig

    def get_pos_offset(
        self, past_kv_cache: TransformerLensKeyValueCache | None, batch_size: int
    ) -> int:
        """The position of the first new token: the number of cached ones.

        Args:
            past_kv_cache: the keys and values of earlier tokens, if there are any.
            batch_size: the number of sequences.

        Raises:
            UserError: for a cache of another model or batch.
        """
        if past_kv_cache is None:
            return 0
        check_cache(self.cfg, past_kv_cache, batch_size, 0)
        return past_kv_cache.n_positions

    @with_numerics
    def get_residual(
        self,
        embed: Float[Array, "batch pos d_model"],
        pos_offset: int,
        prepend_bos: bool | None = None,  # noqa: ARG002
        attention_mask: Int[Array, "batch offset_pos"] | None = None,
        tokens: Int[Array, "batch pos"] | None = None,  # noqa: ARG002
        return_shortformer_pos_embed: bool = True,
        device: object = None,  # noqa: ARG002
    ) -> Any:
        """The first block's input: the embeddings of tokens, with those of positions added.

        Args:
            embed: the embeddings of tokens [batch, pos, d_model].
            pos_offset: the position of the first token.
            prepend_bos, tokens, device: without effect.
            attention_mask: 1 for tokens and 0 for padding [batch, pos_offset + pos].
            return_shortformer_pos_embed: return the positional embeddings of shortformer too.

        Returns:
            The residual stream [batch, pos, d_model] and, if asked for, the positional embeddings
            of a shortformer model, or None.

        Raises:
            UserError: for arguments of other shapes, or positions that are beyond n_ctx.
        """
        model: Any = self
        embed = check_stream(self.cfg, "embed", embed)
        end = require_int("pos_offset", pos_offset, at_least=0) + embed.shape[1]
        if end > self.cfg.n_ctx:
            raise UserError(
                f"{embed.shape[1]} tokens from position {pos_offset} on are longer than "
                f"n_ctx={self.cfg.n_ctx}, the model's context"
            )
        if attention_mask is None:
            positions = Positions()
        else:
            positions = PaddedPositions(check_mask(attention_mask, (len(embed), end)))
        positions.offset = pos_offset
        tap = applying(model._handles, model.hook_point)
        residual, shortformer_pos_embed = model.pos_embed.add(embed, positions, tap)
        return (residual, shortformer_pos_embed) if return_shortformer_pos_embed else residual
