"""The logits along the singular vectors of weights, as TransformerLens' `SVDInterpreter`."""

from __future__ import annotations

from typing import Literal, get_args

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.model import HookedTransformer
from jax_revinc.weights.factored_matrix import svd
from revinc.errors import UserError
from revinc.validation import require_choice, require_int

VectorType = Literal["OV", "w_in", "w_out"]
VECTOR_TYPES = list(get_args(VectorType))


class SVDInterpreter:
    """What the largest singular vectors of a model's weights mean in terms of output tokens.

    Args:
        model: the model to interpret.
    """

    def __init__(self, model: HookedTransformer) -> None:
        self.model = model
        self.cfg = model.cfg

    @property
    def params(self) -> dict[str, Array]:
        """The model's parameters by name."""
        return dict(self.model.named_parameters())

    def get_singular_vectors(
        self,
        vector_type: VectorType,
        layer_index: int,
        num_vectors: int = 10,
        head_index: int | None = None,
    ) -> Float[Array, "d_vocab_out 1 num_vectors"]:
        """The logits along the right singular vectors of a matrix, of the largest values first.

        The sign of each vector is arbitrary. The final norm is left out.

        Args:
            vector_type: "OV": a head's ``W_V @ W_O``; "w_in": an MLP's ``W_in``, transposed, times
                the gain of the norm before it; "w_out": an MLP's ``W_out``.
            layer_index: the layer.
            num_vectors: how many vectors.
            head_index: the head, for "OV".

        Raises:
            UserError: for an unknown type, a layer, head or number of vectors that does not exist,
                or an MLP of an attention-only model.
        """
        require_choice("vector_type", vector_type, VECTOR_TYPES)
        layer = require_int("layer_index", layer_index, at_least=0, below=self.cfg.n_layers)
        if vector_type == "OV":
            if head_index is None:
                raise UserError("vector_type='OV' needs a head_index")
            head = require_int("head_index", head_index, at_least=0, below=self.cfg.n_heads)
            V = self.model.blocks[layer].attn.OV[head].V
        else:
            V = mlp_vectors(self.model, vector_type, layer)
        n_vectors = require_int("num_vectors", num_vectors, at_least=1, at_most=V.shape[1])
        return logits_along(self.model, V[:, :n_vectors])[:, None]


@with_numerics
def mlp_vectors(
    model: HookedTransformer, vector_type: VectorType, layer: int
) -> Float[Array, "d_model rank"]:
    """The right singular vectors of an MLP's ``W_in`` or ``W_out``, in columns."""
    if vector_type == "w_out":
        return svd(model.W_out[layer]).V
    gain = getattr(model.blocks[layer].ln2, "w", jnp.ones(()))
    return svd(model.W_in[layer].T * gain).V


@with_numerics
def logits_along(
    model: HookedTransformer, vectors: Float[Array, "d_model n"]
) -> Float[Array, "d_vocab_out n"]:
    """The logits that each direction of the residual stream adds."""
    return model.W_U.T @ vectors
