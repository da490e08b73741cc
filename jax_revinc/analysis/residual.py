"""Components of the residual stream: labelled outputs of embeddings, heads and MLPs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from jax_revinc.hooks import ActivationCache
from jax_revinc.model import HookedTransformer, find_param
from revinc import HookedTransformerConfig, UserError
from revinc.validation import require_index

Index = int | slice | tuple[int, ...] | Sequence[int] | None
"""The elements of an axis to keep, as in TransformerLens.

An int drops the axis, a tuple is a slice's arguments ((1, 4) keeps 1, 2, 3), a list holds indices,
None keeps all.
"""

Stack = Float[Array, "components *batch pos d_model"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["stack"], meta_fields=["labels"])
@dataclass(frozen=True)
class Block:
    """A stack of labelled components of the residual stream; a pytree, so jit can return it."""

    labels: tuple[str, ...]
    stack: Stack


def fed_layer(cfg: HookedTransformerConfig, layer: int | None, mlp_input: bool = False) -> int:
    """Check a layer's index and return it counted from 0; the unembedding is layer n_layers.

    Raises:
        UserError: if there is no such layer, or it has no MLP and `mlp_input` asks for one.
    """
    at_end = layer is None or layer == -1
    fed = require_index("layer", cfg.n_layers if at_end else layer, cfg.n_layers + 1)
    if mlp_input and (cfg.attn_only or fed == cfg.n_layers):
        where = "an attention-only model" if cfg.attn_only else "the unembedding"
        raise UserError(f"mlp_input asks for the input to an MLP, but {where} has no MLP")
    return fed


def mlp_stream(cfg: HookedTransformerConfig) -> str | None:
    """Where MLPs read the residual stream: "resid_mid", or "resid_pre" if parallel to attention."""
    if cfg.attn_only:
        return None
    return "resid_pre" if cfg.parallel_attn_mlp else "resid_mid"


def n_attentions_before(cfg: HookedTransformerConfig, fed: int, mlp_input: bool) -> int:
    """The number of attention layers that write into the input of layer `fed`, or of its MLP."""
    return fed + (mlp_input and not cfg.parallel_attn_mlp)


def embeddings(cfg: HookedTransformerConfig, cache: ActivationCache) -> list[Block]:
    """The token embedding and, if it is added to the stream, the positional one, as components."""
    names = ["embed", "pos_embed"] if cfg.has_positions_in_stream else ["embed"]
    return [Block((name,), cache[f"hook_{name}"][None]) for name in names]


def layer_output(cache: ActivationCache, layer: int, name: str) -> Block:
    """The output of a layer's attention ("attn_out") or MLP ("mlp_out"), with its label."""
    return Block((f"{layer}_{name}",), cache[name, layer][None])


def weight(model: HookedTransformer, layer: int, name: str) -> Array:
    """A parameter of one layer of a model, by its name in the layer, such as ``attn.W_O``."""
    return find_param(model, f"blocks.{layer}.{name}")[...]


def everywhere(cache: ActivationCache, label: str, bias: Float[Array, " d_model"]) -> Block:
    """A bias as a component of the residual stream, repeated at every position of every input."""
    return Block((label,), jnp.broadcast_to(bias, (1, *cache["hook_embed"].shape)))


def head_results(model: HookedTransformer, cache: ActivationCache, layer: int) -> Block:
    """The outputs of a layer's heads, as components of the residual stream."""
    W_O_HEM = weight(model, layer, "attn.W_O")
    labels = tuple(f"L{layer}H{head}" for head in range(model.cfg.n_heads))
    return Block(labels, jnp.einsum("...he,hem->h...m", cache["z", layer], W_O_HEM))


def neuron_results(
    model: HookedTransformer,
    cache: ActivationCache,
    layer: int,
    neurons: Int[np.ndarray, " neuron"],
) -> Block:
    """The outputs of some neurons of a layer's MLP, as components of the residual stream."""
    post, W_out_FM = cache["post", layer][..., neurons], weight(model, layer, "mlp.W_out")[neurons]
    labels = tuple(f"L{layer}N{neuron}" for neuron in neurons)
    return Block(labels, jnp.einsum("...f,fm->f...m", post, W_out_FM))


def remainder(cache: ActivationCache, blocks: list[Block], fed: int) -> Block:
    """The input to layer `fed` minus the sum of all components in `blocks`.

    TransformerLens differs at layer 0.
    """
    resid = cache["resid_post", fed - 1] if fed else cache["resid_pre", 0]
    return Block(("remainder",), (resid - sum(block.stack.sum(0) for block in blocks))[None])


def concatenate(blocks: list[Block]) -> Block:
    """Join several `Block` objects, components of the residual stream, into one."""
    return Block(
        tuple(label for block in blocks for label in block.labels),
        jnp.concatenate([block.stack for block in blocks]),
    )


def at_positions(activation: Float[Array, "*rest pos last"], pos_slice: Index) -> Array:
    """The activation at the positions that `pos_slice` keeps."""
    positions = indices(pos_slice, activation.shape[-2], "position")
    return jnp.take(activation, positions, axis=-2)


def indices(index: Index, n: int, what: str) -> Int[np.ndarray, "*kept"]:
    """The numbers in ``0..n-1`` that `index` (an int, list, slice, tuple or None) selects.

    Args:
        index: see `Index`.
        n: the size of the axis.
        what: what the axis counts, for the error.

    Raises:
        UserError: if an element does not exist (JAX would take the nearest).
    """
    if index is None:
        return np.arange(n)
    try:
        kept = np.arange(n)[slice(*index) if isinstance(index, tuple) else index]
        if np.ndim(kept) > 1:  # such as True
            raise IndexError
        return np.asarray(kept)
    except (IndexError, TypeError, ValueError):
        raise UserError(
            f"the {what} {index!r} does not exist; choose among 0..{n - 1} by an int, a list, a "
            "slice, or a tuple of a slice's arguments"
        ) from None
