"""A model's weights as TransformerLens names them: stacked over layers, and in products."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.forward.next_token import lm_cross_entropy_loss
from jax_revinc.forward.token_checks import check_range
from jax_revinc.weights.composition import composition_scores
from jax_revinc.weights.factored_matrix import FactoredMatrix
from revinc import HookedTransformerConfig
from revinc.errors import UserError, shown
from revinc.validation import require_choice, require_int
from revinc.weights import parameter_count, parameter_shapes

Composition = Literal["Q", "K", "V"]

PARTS_OF_BLOCK = ("ln1", "ln2", "attn", "mlp")
OF_ATTENTION = ("W_Q", "W_O", "b_Q", "b_O", "W_K", "W_V", "b_K", "b_V")
OF_GATED_MLP = ("W_in", "W_out", "W_gate", "b_in", "b_out")
"""Where TransformerLens lists parameters in another order than `parameter_shapes`."""


class NoSuchWeight(UserError, AttributeError):
    """The error for a weight that models of this config do not have."""


class StackedWeights:
    """The part of a `HookedTransformer` that gives its weights by TransformerLens' names.

    The weights of the layers are stacked along a first axis. Keys and values that heads share are
    repeated for every head.
    """

    cfg: HookedTransformerConfig
    blocks: nnx.List[Any]
    embed: Any
    pos_embed: Any
    unembed: Any

    @property
    def params(self) -> dict[str, Array]:
        """The parameters by name; the model defines it."""
        raise NotImplementedError

    @property
    def W_E(self) -> Float[Array, "d_vocab d_model"]:
        """The token embedding."""
        return self.embed.W_E[...]

    @property
    def W_pos(self) -> Float[Array, "n_ctx d_model"]:
        """The positional embedding.

        Raises:
            AttributeError: for rotary models and those without positions.
        """
        if not hasattr(self.pos_embed, "W_pos"):
            raise NoSuchWeight(
                "a model with positional_embedding_type="
                f"{self.cfg.positional_embedding_type!r} has no W_pos"
            )
        return self.pos_embed.W_pos[...]

    @property
    @with_numerics
    def W_E_pos(self) -> Float[Array, "d_vocab+n_ctx d_model"]:
        """The token embedding, and the positional one below it.

        Raises:
            AttributeError: for models without a positional embedding.
        """
        return jnp.concatenate([self.W_E, self.W_pos])

    @property
    def W_U(self) -> Float[Array, "d_model d_vocab_out"]:
        """The unembedding."""
        return self.unembed.W_U[...]

    @property
    def b_U(self) -> Float[Array, " d_vocab_out"]:
        """The bias of the unembedding."""
        return self.unembed.b_U[...]

    @property
    def W_Q(self) -> Float[Array, "n_layers n_heads d_model d_head"]:
        """The weights of queries."""
        return self.stack_weights("attn", "W_Q")

    @property
    def W_K(self) -> Float[Array, "n_layers n_heads d_model d_head"]:
        """The weights of keys."""
        return self.stack_weights("attn", "W_K")

    @property
    def W_V(self) -> Float[Array, "n_layers n_heads d_model d_head"]:
        """The weights of values."""
        return self.stack_weights("attn", "W_V")

    @property
    def W_O(self) -> Float[Array, "n_layers n_heads d_head d_model"]:
        """The weights of the heads' outputs."""
        return self.stack_weights("attn", "W_O")

    @property
    def b_Q(self) -> Float[Array, "n_layers n_heads d_head"]:
        """The biases of queries."""
        return self.stack_weights("attn", "b_Q")

    @property
    def b_K(self) -> Float[Array, "n_layers n_heads d_head"]:
        """The biases of keys."""
        return self.stack_weights("attn", "b_K")

    @property
    def b_V(self) -> Float[Array, "n_layers n_heads d_head"]:
        """The biases of values."""
        return self.stack_weights("attn", "b_V")

    @property
    def b_O(self) -> Float[Array, "n_layers d_model"]:
        """The biases of the attention outputs."""
        return self.stack_weights("attn", "b_O")

    @property
    def W_in(self) -> Float[Array, "n_layers d_model d_mlp"]:
        """The weights into the MLPs.

        Raises:
            AttributeError: for a model without MLPs.
        """
        return self.stack_weights("mlp", "W_in")

    @property
    def W_gate(self) -> Float[Array, "n_layers d_model d_mlp"] | None:
        """The weights of the MLPs' gates; None if they have none."""
        return self.stack_weights("mlp", "W_gate") if self.cfg.gated_mlp else None

    @property
    def W_out(self) -> Float[Array, "n_layers d_mlp d_model"]:
        """The weights out of the MLPs.

        Raises:
            AttributeError: for a model without MLPs.
        """
        return self.stack_weights("mlp", "W_out")

    @property
    def b_in(self) -> Float[Array, "n_layers d_mlp"]:
        """The biases of the neurons.

        Raises:
            AttributeError: for a model without MLPs.
        """
        return self.stack_weights("mlp", "b_in")

    @property
    def b_out(self) -> Float[Array, "n_layers d_model"]:
        """The biases of the MLPs' outputs.

        Raises:
            AttributeError: for a model without MLPs.
        """
        return self.stack_weights("mlp", "b_out")

    @with_numerics
    def stack_weights(self, part: str, name: str) -> Float[Array, "n_layers ..."]:
        """The weight `name` of a part of the blocks ("attn" or "mlp"), of all layers.

        Raises:
            AttributeError: for the MLPs of an attention-only model.
        """
        if part == "mlp" and self.cfg.attn_only:
            raise NoSuchWeight(f"a model with attn_only=True has no MLPs, so it has no {name}")
        return jnp.stack([getattr(getattr(block, part), name)[...] for block in self.blocks])

    @property
    def QK(self) -> FactoredMatrix:
        """``W_Q @ W_K.T`` of every head [n_layers, n_heads, d_model, d_model]."""
        return FactoredMatrix(self.W_Q, self.W_K.mT)

    @property
    def OV(self) -> FactoredMatrix:
        """``W_V @ W_O`` of every head [n_layers, n_heads, d_model, d_model]."""
        return FactoredMatrix(self.W_V, self.W_O)

    @with_numerics
    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Array, " d_model"]:
        """The sum of the output biases of the first layers.

        Args:
            layer: the number of layers, from 0 to n_layers.
            mlp_input: include the attention's bias of block `layer`, up to its MLP's input.
            include_mlp_biases: include the biases of MLPs, and not only those of attention.

        Raises:
            UserError: for a layer that does not exist.
        """
        n_layers = self.cfg.n_layers
        layer = require_int("layer", layer, at_least=0, at_most=n_layers)
        if mlp_input and layer == n_layers:
            raise UserError(f"mlp_input needs a layer in 0..{n_layers - 1}, not {layer}")
        biases = [block.attn.b_O[...] for block in self.blocks[: layer + mlp_input]]
        if include_mlp_biases and not self.cfg.attn_only:
            biases += [block.mlp.b_out[...] for block in self.blocks[:layer]]
        return sum(biases, jnp.zeros(self.cfg.d_model, self.cfg.dtype))

    @with_numerics
    def all_composition_scores(
        self, mode: Composition
    ) -> Float[Array, "n_layers n_heads n_layers n_heads"]:
        """How much each head's output affects each later head: `composition_scores` of weights.

        Indexed [earlier layer, earlier head, later layer, later head]; 0 where the second is not
        later. Norms are left out.

        Args:
            mode: the input of the later head: "Q", "K" or "V", for ``QK``, ``QK.T`` or ``OV``.

        Raises:
            UserError: for another mode.
        """
        require_choice("mode", mode, ("Q", "K", "V"))
        reads = {"Q": self.QK, "K": self.QK.T, "V": self.OV}[mode]
        layers = np.arange(self.cfg.n_layers)
        later_LL = layers[:, None] < layers
        return jnp.where(later_LL[:, None, :, None], composition_scores(self.OV, reads), 0.0)

    def all_head_labels(self) -> list[str]:
        """The names of all heads, such as "L0H1", layer by layer."""
        heads = range(self.cfg.n_heads)
        return [f"L{layer}H{head}" for layer in range(self.cfg.n_layers) for head in heads]

    @with_numerics
    def tokens_to_residual_directions(
        self, tokens: int | Int[Array, "*shape"]
    ) -> Float[Array, "*shape d_model"]:
        """The unembedding's column of each token: what a residual stream is compared with.

        Args:
            tokens: token ids, of any shape. An array of one id gives one direction [d_model].

        Raises:
            UserError: for text, or an id outside the output vocabulary; traced ids are not checked.
        """
        if isinstance(tokens, str):
            raise UserError(
                f"{shown(tokens)} is text, and these models have no tokenizer; give token ids"
            )
        ids = output_ids(tokens, self.cfg.d_vocab_out)
        return self.W_U.T[ids.reshape(()) if ids.size == 1 else ids]

    @with_numerics
    def loss_fn(
        self,
        logits: Float[Array, "batch pos d_vocab_out"],
        tokens: Int[Array, "batch pos"],
        attention_mask: Int[Array, "batch pos"] | Bool[Array, "batch pos"] | None = None,
        per_token: bool = False,
    ) -> Float[Array, ""] | Float[Array, "batch pos-1"]:
        """The loss of next tokens: `jax_revinc.utils.lm_cross_entropy_loss`."""
        return lm_cross_entropy_loss(logits, tokens, attention_mask, per_token)

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        """The parameters with their names, in TransformerLens' order.

        Arrays can't be changed in place: `load_state_dict` sets parameters.
        """
        params = self.params
        return ((name, params[name]) for name in names_in_order(self.cfg))

    def parameters(self) -> Iterator[Array]:
        """The parameters, in TransformerLens' order."""
        return (array for _, array in self.named_parameters())

    @property
    def n_params_total(self) -> int:
        """The number of all parameters; ``cfg.n_params`` counts the matrices of the blocks."""
        return parameter_count(self.cfg)


def names_in_order(cfg: HookedTransformerConfig) -> list[str]:
    """The names of a model's parameters in the order in which TransformerLens lists them."""
    own = OF_ATTENTION + (OF_GATED_MLP if cfg.gated_mlp else ())

    def rank(name: str) -> tuple[int, int, int]:
        part, *_, last = name.split(".")[2:]
        bare = last.removeprefix("_")
        order = own.index(bare) if bare in own else 0
        return PARTS_OF_BLOCK.index(part), name.count("."), order

    groups = groupby(parameter_shapes(cfg), lambda name: name.split(".")[:2])
    return [
        name
        for (part, _), names in groups
        for name in (sorted(names, key=rank) if part == "blocks" else names)
    ]


def output_ids(tokens: Any, size: int) -> Int[Array, "*shape"]:
    """Ids of output tokens as an array; as in torch, negative ones count from the end.

    Raises:
        UserError: if they are no integers, or out of range. Traced ids are not checked for it.
    """
    ids = tokens if isinstance(tokens, jax.core.Tracer) else np.asarray(tokens)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise UserError(f"token ids must be integers, not {shown(tokens)}")
    check_range(ids, size, "d_vocab_out", from_end=True)
    return jnp.asarray(ids)
