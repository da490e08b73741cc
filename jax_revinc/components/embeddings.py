"""Embeddings of tokens and positions, and the unembedding."""

from __future__ import annotations

from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.components.component import Component
from jax_revinc.components.params import Params
from jax_revinc.components.positions import FROM_ZERO, Positions
from jax_revinc.hooks.taps import Tap, identity


class Embed(Component):
    """The token embedding: ids to vectors."""

    def __init__(self, params: Params) -> None:
        self.W_E = nnx.Param(params["W_E"])

    def __call__(self, tokens_BP: Int[Array, "batch pos"]) -> Float[Array, "batch pos d_model"]:
        return self.W_E[tokens_BP]


class NoPosEmbed(Component):
    """A positional embedding that adds nothing to the residual stream (rotary, or none at all)."""

    def __init__(self, params: Params) -> None:
        pass

    def add(
        self, embed_BPM: Float[Array, "batch pos d_model"], positions: Positions, tap: Tap
    ) -> tuple[Float[Array, "batch pos d_model"], Float[Array, "batch pos d_model"] | None]:
        """The first block's input, and vectors to add to the inputs of queries and keys, if any."""
        return embed_BPM, None


class UnusedPosEmbed(NoPosEmbed):
    """A positional embedding whose ``W_pos`` is never used; TransformerLens has it with alibi."""

    def __init__(self, params: Params) -> None:
        self.W_pos = nnx.Param(params["W_pos"])

    def __call__(
        self, tokens_BP: Int[Array, "batch pos"], positions: Positions = FROM_ZERO
    ) -> Float[Array, "batch pos d_model"]:
        """The vectors of the positions at which tokens stand."""
        return positions.embed(self.W_pos, *tokens_BP.shape)


class PosEmbed(UnusedPosEmbed):
    """A learned vector for each position, added to the residual stream."""

    def add(
        self, embed_BPM: Float[Array, "batch pos d_model"], positions: Positions, tap: Tap
    ) -> tuple[Float[Array, "batch pos d_model"], Float[Array, "batch pos d_model"] | None]:
        return embed_BPM + self.vectors(embed_BPM, positions, tap), None

    def vectors(
        self, embed_BPM: Float[Array, "batch pos d_model"], positions: Positions, tap: Tap
    ) -> Float[Array, "batch pos d_model"]:
        """The positional embeddings of every sequence."""
        batch, length, _ = embed_BPM.shape
        return tap("hook_pos_embed", positions.embed(self.W_pos, batch, length))


class ShortformerPosEmbed(PosEmbed):
    """A learned vector for each position, added to the inputs of queries and keys alone.

    Press et al. 2021, arXiv:2012.15832.
    """

    def add(
        self, embed_BPM: Float[Array, "batch pos d_model"], positions: Positions, tap: Tap
    ) -> tuple[Float[Array, "batch pos d_model"], Float[Array, "batch pos d_model"] | None]:
        return embed_BPM, self.vectors(embed_BPM, positions, tap)


POS_EMBEDS: dict[str, type[NoPosEmbed]] = {
    "standard": PosEmbed,
    "shortformer": ShortformerPosEmbed,
    "alibi": UnusedPosEmbed,
    "rotary": NoPosEmbed,
    "none": NoPosEmbed,
}
"""The module of every ``positional_embedding_type``."""


class Unembed(Component):
    """The unembedding: vectors to logits."""

    def __init__(self, params: Params) -> None:
        self.W_U = nnx.Param(params["W_U"])
        self.b_U = nnx.Param(params["b_U"])

    def __call__(
        self, resid_BPM: Float[Array, "batch pos d_model"], tap: Tap = identity
    ) -> Float[Array, "batch pos d_vocab_out"]:
        resid_BPM = tap("hook_in", resid_BPM)
        return tap("hook_out", resid_BPM @ self.W_U + self.b_U)
