"""Weights multiplied into circuits: what each head looks for, what it moves, what an MLP maps to what.

After Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", in TransformerLens' terms.

A circuit is linear, a layer norm is not: it divides by a scale that hangs on the input. So circuits here
run through *folded* norms, as after TransformerLens' ``process_weights_(fold_ln=True)``: gains and centring
belong to the weights, and the division is left out. Without norms that is exact; with them a circuit is
right up to one positive factor per input and norm. Biases (the folded ones too) are left out, and so is
the ``1 / sqrt(d_head)`` of attention scores.

Heads and MLPs of later layers read more than embeddings; their circuits are their direct paths from token
to logits alone.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jax_revinc.components.block import TransformerBlock
from jax_revinc.hooks import identity
from jax_revinc.model import HookedTransformer
from jax_revinc.numerics import with_numerics
from revinc import UserError
from revinc.validation import require_choice
from revinc.weight_processing import FOLDED

Composition = Literal["Q", "K", "V"]


class QKCircuit(NamedTuple):
    """How strongly a query made of one embedding asks for a key made of another, per layer and head."""

    token_token: Float[Array, "n_layers n_heads d_vocab d_vocab"]
    token_position: Float[Array, "n_layers n_heads d_vocab n_ctx"]
    position_token: Float[Array, "n_layers n_heads n_ctx d_vocab"]
    position_position: Float[Array, "n_layers n_heads n_ctx n_ctx"]


class SVD(NamedTuple):
    """``circuit = U @ diag(S) @ V.T``; V holds its vectors in columns, as TransformerLens' FactoredMatrix."""

    U: Float[Array, "... rows rank"]
    S: Float[Array, "... rank"]
    V: Float[Array, "... columns rank"]


@with_numerics
def fold_layer_norm(model: HookedTransformer) -> HookedTransformer:
    """The same function with each norm's gain, bias and centring in the weights that read from it.

    As `HookedTransformer.process_weights` without its other steps. With norms that have no weights, or none,
    the model itself comes back.

    Raises:
        UserError: if what heads read can't be told without their norm.
    """
    if model.cfg.normalization_type not in FOLDED:
        return model
    if model.cfg.positional_embedding_type == "shortformer":
        raise UserError(
            "circuits need norms whose weights can be folded, and shortformer adds positions behind them; "
            "choose another positional_embedding_type, or a normalization_type without weights"
        )
    return model.process_weights(
        center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )


@with_numerics
def qk_circuit(model: HookedTransformer) -> QKCircuit:
    """The full QK circuit, ``W_E_pos @ W_Q @ W_K.T @ W_E_pos.T``, in its four parts.

    A query that stands at position p on token t scores a key at position q on token u, in the first layer
    and up to the norms' scales, ``token_token[t, u] + token_position[t, q] + position_token[p, u] +
    position_position[p, q]`` (times ``1 / sqrt(d_head)``).

    Where positions are not in the residual stream (rotary, alibi, shortformer, none) their parts are empty.
    """
    folded = fold_layer_norm(model)
    in_stream = ["embed.W_E", *["pos_embed.W_pos"] * model.cfg.has_positions_in_stream]
    W_E_pos_XM = jnp.concatenate([folded.params[name] for name in in_stream])
    Q_LHXE = jnp.einsum("xm,lhme->lhxe", W_E_pos_XM, by_layer(folded, "W_Q"))
    K_LHXE = jnp.einsum("xm,lhme->lhxe", W_E_pos_XM, by_layer(folded, "W_K"))
    circuit_LHXX = Q_LHXE @ K_LHXE.mT
    token, position = slice(None, model.cfg.d_vocab), slice(model.cfg.d_vocab, None)
    return QKCircuit(
        circuit_LHXX[..., token, token],
        circuit_LHXX[..., token, position],
        circuit_LHXX[..., position, token],
        circuit_LHXX[..., position, position],
    )


def qk_view(
    model: HookedTransformer, positions: list[str], tokens: list[str]
) -> tuple[str, Float[np.ndarray, "n_layers n_heads read read"], list[str]]:
    """What is worth looking at in the QK circuit: by position if positions are in the stream, else by token.

    Returns:
        "position" or "token"; the matrices, of as many positions as have labels; the labels.
    """
    circuit = qk_circuit(model)
    if model.cfg.has_positions_in_stream:
        n = len(positions)
        return "position", np.asarray(circuit.position_position)[..., :n, :n], positions
    return "token", np.asarray(circuit.token_token), tokens


@with_numerics
def ov_circuit(model: HookedTransformer) -> Float[Array, "n_layers n_heads d_vocab d_vocab_out"]:
    """The full OV circuit, ``W_E @ W_V @ W_O @ W_U``: what attending to a token adds to each logit."""
    folded = fold_layer_norm(model)
    V_LHVE = jnp.einsum("vm,lhme->lhve", folded.embed.W_E[...], by_layer(folded, "W_V"))
    return V_LHVE @ (by_layer(folded, "W_O") @ folded.unembed.W_U[...])


@with_numerics
def direct_path(model: HookedTransformer) -> Float[Array, "d_vocab d_vocab_out"]:
    """``W_E @ W_U``: what a token adds to the logits past all attention and MLPs."""
    folded = fold_layer_norm(model)
    return folded.embed.W_E[...] @ folded.unembed.W_U[...]


@with_numerics
def mlp_map(model: HookedTransformer) -> Float[Array, "n_layers d_vocab d_vocab_out"]:
    """What each MLP adds to the logits if it is fed one token's embedding alone, without a position.

    The MLP's own norm divides as it does in the model, since the MLP is not linear anyway.

    Raises:
        UserError: if the model has no MLPs.
    """
    if model.cfg.attn_only:
        raise UserError("mlp_map needs MLPs, and this model is attn_only")
    folded = fold_layer_norm(model)
    W_E_VM = folded.embed.W_E[...]
    written_LVM = [
        block.mlp(block.ln2(W_E_VM, identity), identity)
        for block in folded.blocks
        if isinstance(block, TransformerBlock)
    ]
    return jnp.stack(written_LVM) @ folded.unembed.W_U[...]


@with_numerics
def svd(model: HookedTransformer, circuit: Float[Array, "... rows columns"]) -> SVD:
    """The singular value decomposition of one of the model's circuits, largest value first.

    A head's circuit has at most ``d_head`` singular values above rounding. The sign of a pair of vectors is
    arbitrary. `model` says in which precision to work.
    """
    if circuit.ndim < 2 or circuit.dtype != model.cfg.dtype:
        raise UserError(
            f"svd takes a circuit of this model: a {model.cfg.dtype} matrix, or several, "
            f"not {circuit.dtype} of shape {list(circuit.shape)}"
        )
    U, S, Vh = jnp.linalg.svd(circuit, full_matrices=False)
    return SVD(U, S, Vh.mT)


@with_numerics
def all_composition_scores(
    model: HookedTransformer, mode: Composition
) -> Float[Array, "n_layers n_heads n_layers n_heads"]:
    """How much of what each later head reads, for its queries, keys or values, the earlier head can write.

    ``|W_OV @ W| / (|W_OV| |W|)`` in Frobenius norms, with W the later head's ``W_QK``, ``W_QK.T`` or
    ``W_OV``, indexed [earlier layer, earlier head, later layer, later head]; 0 where the second is not later.
    As TransformerLens' method of that name, so on the weights as they are: for the norms' gains to count,
    pass ``fold_layer_norm(model)``.

    Raises:
        UserError: for another `mode` than "Q", "K" or "V".
    """
    require_choice("mode", mode, ("Q", "K", "V"))
    QK_LHMM = by_layer(model, "W_Q") @ by_layer(model, "W_K").mT
    OV_LHMM = by_layer(model, "W_V") @ by_layer(model, "W_O")
    reads_LHMM = {"Q": QK_LHMM, "K": QK_LHMM.mT, "V": OV_LHMM}[mode]
    composed_LHLHMM = jnp.einsum("abmn,cdnk->abcdmk", OV_LHMM, reads_LHMM)
    norms_LHLH = frobenius(OV_LHMM)[:, :, None, None] * frobenius(reads_LHMM)
    layers = jnp.arange(model.cfg.n_layers)
    later_LL = layers[:, None] < layers
    return jnp.where(
        later_LL[:, None, :, None], frobenius(composed_LHLHMM) / norms_LHLH, jnp.zeros(())
    )


def frobenius(matrices: Float[Array, "... rows columns"]) -> Float[Array, ...]:
    """The Frobenius norm of each matrix."""
    return jnp.sqrt((matrices**2).sum((-2, -1)))


def by_layer(
    model: HookedTransformer, weight: str
) -> Float[Array, "n_layers n_heads rows columns"]:
    """An attention weight such as ``W_Q`` of every layer and head."""
    return jnp.stack([getattr(block.attn, weight)[...] for block in model.blocks])
