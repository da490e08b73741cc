"""Circuits: products of weights that show which keys a head seeks and which logits it writes.

After Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", in TransformerLens'
terms.

A circuit is linear; a layer norm is not, since it divides by a scale that depends on the input. So
circuits here run through *folded* norms, as after TransformerLens'
``process_weights_(fold_ln=True)``: gains and centring belong to the weights, and the division is
left out. Without norms that is exact; with them a circuit is right up to one positive factor per
input and norm. Biases, also folded ones, and the ``1 / sqrt(d_head)`` of attention scores are left
out.

Heads and MLPs of later layers read more than embeddings: their circuits are only their direct paths
from token to logits.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jax_revinc.compilation.numerical_settings import with_numerics
from jax_revinc.components.block import TransformerBlock
from jax_revinc.forward.token_checks import require_array
from jax_revinc.hooks.taps import identity
from jax_revinc.model import HookedTransformer
from jax_revinc.weights import factored_matrix
from jax_revinc.weights.factored_matrix import SVD
from jax_revinc.weights.stacked_weights import Composition
from revinc import UserError
from revinc.weight_processing import FOLDED


class QKCircuit(NamedTuple):
    """A full QK circuit: attention scores between the embeddings of tokens and of positions."""

    token_token: Float[Array, "n_layers n_heads d_vocab d_vocab"]
    token_position: Float[Array, "n_layers n_heads d_vocab n_ctx"]
    position_token: Float[Array, "n_layers n_heads n_ctx d_vocab"]
    position_position: Float[Array, "n_layers n_heads n_ctx n_ctx"]


@with_numerics
def fold_layer_norm(model: HookedTransformer) -> HookedTransformer:
    """A model that computes the same, with its norms' gain, bias and centring folded into weights.

    This is the step ``fold_ln`` of `HookedTransformer.process_weights`. A model without norms, or
    whose norms have no weights, is returned as it is.

    Raises:
        UserError: for shortformer positions, which are added after the norm.
    """
    if model.cfg.normalization_type not in FOLDED:
        return model
    if model.cfg.positional_embedding_type == "shortformer":
        raise UserError(
            "circuits of a shortformer model need norms without weights: it adds positions after "
            "the norms, so the norms' weights can't be folded; choose another "
            "positional_embedding_type, or a normalization_type without weights"
        )
    return model.process_weights(
        center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )


@with_numerics
def qk_circuit(model: HookedTransformer) -> QKCircuit:
    """The full QK circuit of every head, split by whether query and key are tokens or positions.

    It is ``W_E_pos @ W_Q @ W_K.T @ W_E_pos.T``, where ``W_E_pos`` stacks both embeddings. In the
    first layer, the score of the query of token t at position p with the key of token u at position
    q is ``token_token[t, u] + token_position[t, q] + position_token[p, u] +
    position_position[p, q]``, times ``1 / sqrt(d_head)`` and up to the norms' scales.

    Without positions in the residual stream (rotary, alibi, shortformer, none) their parts are
    empty.
    """
    folded = fold_layer_norm(model)
    in_stream = [folded.params["embed.W_E"]]
    if model.cfg.has_positions_in_stream:
        in_stream.append(folded.params["pos_embed.W_pos"])
    W_E_pos_XM = jnp.concatenate(in_stream)
    Q_LHXE = jnp.einsum("xm,lhme->lhxe", W_E_pos_XM, folded.W_Q)
    K_LHXE = jnp.einsum("xm,lhme->lhxe", W_E_pos_XM, folded.W_K)
    circuit_LHXX = Q_LHXE @ K_LHXE.mT
    token, position = slice(None, model.cfg.d_vocab), slice(model.cfg.d_vocab, None)
    return QKCircuit(
        circuit_LHXX[..., token, token],
        circuit_LHXX[..., token, position],
        circuit_LHXX[..., position, token],
        circuit_LHXX[..., position, position],
    )


def qk_view(
    circuit: QKCircuit, positions: list[str], tokens: list[str]
) -> tuple[str, Float[np.ndarray, "n_layers n_heads read read"], list[str]]:
    """The QK circuit between positions, or between tokens if no position is in the residual stream.

    Args:
        circuit: from `qk_circuit`.
        positions: labels of the first positions.
        tokens: labels of all tokens.

    Returns:
        "position" or "token"; the matrices, of the positions that have labels; the labels.
    """
    if circuit.position_position.size:
        n = len(positions)
        return "position", np.asarray(circuit.position_position)[..., :n, :n], positions
    return "token", np.asarray(circuit.token_token), tokens


@with_numerics
def ov_circuit(model: HookedTransformer) -> Float[Array, "n_layers n_heads d_vocab d_vocab_out"]:
    """The full OV circuit, ``W_E @ W_V @ W_O @ W_U``: the logits that attending to a token adds."""
    folded = fold_layer_norm(model)
    V_LHVE = jnp.einsum("vm,lhme->lhve", folded.W_E, folded.W_V)
    return V_LHVE @ (folded.W_O @ folded.W_U)


@with_numerics
def direct_path(model: HookedTransformer) -> Float[Array, "d_vocab d_vocab_out"]:
    """``W_E @ W_U``: the logits that a token adds without passing through attention or MLPs."""
    folded = fold_layer_norm(model)
    return folded.W_E @ folded.W_U


@with_numerics
def mlp_map(model: HookedTransformer) -> Float[Array, "n_layers d_vocab d_vocab_out"]:
    """The logits that each MLP adds if it is fed one token's embedding without a positional one.

    The MLP's norm divides by its scale, as in the model: the MLP is not linear anyway.

    Raises:
        UserError: if the model has no MLPs.
    """
    if model.cfg.attn_only:
        raise UserError("mlp_map needs MLPs, and this model has none (attn_only)")
    folded = fold_layer_norm(model)
    W_E_VM = folded.W_E
    written_LVM = [
        block.mlp(block.ln2(W_E_VM, identity), identity)
        for block in folded.blocks
        if isinstance(block, TransformerBlock)
    ]
    return jnp.stack(written_LVM) @ folded.W_U


@with_numerics
def svd(model: HookedTransformer, circuit: Float[Array, "... rows columns"]) -> SVD:
    """The singular value decomposition of a circuit (a product of weights), largest value first.

    A head's circuit has at most ``d_head`` singular values above rounding. The sign of a pair of
    vectors is arbitrary.

    Args:
        model: the model of the circuit, which decides the precision.
        circuit: a matrix, or several, [..., rows, columns].

    Raises:
        UserError: if the circuit is no matrix of the model's dtype.
    """
    require_array("circuit", circuit)
    if circuit.ndim < 2 or circuit.dtype != model.cfg.dtype:
        raise UserError(
            f"svd takes a circuit of this model, a {model.cfg.dtype} matrix or several of them, "
            f"not an array of {circuit.dtype} of shape {list(circuit.shape)}"
        )
    return factored_matrix.svd(jnp.asarray(circuit))


@with_numerics
def all_composition_scores(
    model: HookedTransformer, mode: Composition
) -> Float[Array, "n_layers n_heads n_layers n_heads"]:
    """`HookedTransformer.all_composition_scores`, as a function of a model.

    Norms are left out: to include their gains, give ``fold_layer_norm(model)``.
    """
    return model.all_composition_scores(mode)
