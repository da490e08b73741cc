"""The norm before a layer with its scale held at that of the cached run: a linear map."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jax_revinc.activations.cached_activations import CachedActivations
from jax_revinc.activations.residual_stream.components import Block, concatenate
from jax_revinc.slices import Slice, SliceInput
from revinc import UserError
from revinc.weight_processing import CENTRING
from revinc.weights import final_normalization_type


@dataclass(frozen=True)
class FrozenNorm:
    """A norm without its gain and bias, whose scale is known.

    Attributes:
        centres: whether it subtracts the mean of its input.
        scale: what it divides by, [batch, pos, 1]; None if there is no norm.
    """

    centres: bool
    scale: Float[Array, "*batch pos 1"] | None

    def centred(self, vectors: Float[Array, "... d_model"]) -> Float[Array, "... d_model"]:
        """The vectors minus their means, if the norm centres."""
        return vectors - vectors.mean(-1, keepdims=True) if self.centres else vectors

    def scaled(self, stack: Float[Array, "... width"], positions: Slice) -> Array:
        """A stack at `positions`, divided by the scale there."""
        if self.scale is None:
            return stack
        return stack / positions.apply(self.scale, -2, "position")


NO_NORM = FrozenNorm(centres=False, scale=None)


def norm_before(cache: CachedActivations, fed: int, mlp_input: bool = False) -> FrozenNorm:
    """The norm before the attention of layer `fed`, or before its MLP; at n_layers the final one.

    Raises:
        KeyError: if its scale is not in the cache.
    """
    at_end = fed == cache.cfg.n_layers
    kind = final_normalization_type(cache.cfg) if at_end else cache.cfg.normalization_type
    if kind is None:
        return NO_NORM
    scale = cache["scale"] if at_end else cache["scale", fed, "ln2" if mlp_input else "ln1"]
    return FrozenNorm(kind in CENTRING, scale)


class Reading:
    """How components are read: at which positions, through which norm, and along what directions.

    Args:
        pos_slice: the positions.
        norm: the norm.
        onto: directions to project on, [d_model, n_outputs], or one, [d_model]; None for none.

    Raises:
        UserError: if `onto` has another shape.
    """

    def __init__(
        self,
        cache: CachedActivations,
        pos_slice: SliceInput,
        norm: FrozenNorm = NO_NORM,
        onto: Array | None = None,
    ) -> None:
        self.positions = Slice(pos_slice)
        self.norm = norm
        self.onto = None if onto is None else directions(onto, cache.cfg.d_model)
        self.is_one_direction = onto is not None and jnp.ndim(onto) == 1

    def vectors(self, written: Float[Array, "... d_model"]) -> Float[Array, "... width"]:
        """What is read of vectors but for the norm's scale. Weights may be read before use."""
        centred = self.norm.centred(written)
        return centred if self.onto is None else centred @ self.onto

    def block(self, block: Block) -> Block:
        """What is read of a block of components but for the norm's scale."""
        return Block(block.labels, self.vectors(block.stack))

    def stack(self, blocks: list[Block]) -> Block:
        """Blocks, of which everything but the norm's scale was read, joined in one and scaled."""
        components = concatenate(blocks)
        stack = self.norm.scaled(components.stack, self.positions)
        return Block(components.labels, stack[..., 0] if self.is_one_direction else stack)


def directions(onto: Array, d_model: int) -> Float[Array, "d_model n_outputs"]:
    """The argument `project_output_onto` as a matrix.

    Raises:
        UserError: if it is no matrix or vector of `d_model` rows.
    """
    matrix = jnp.asarray(onto)
    if matrix.ndim not in (1, 2) or len(matrix) != d_model:
        raise UserError(
            f"project_output_onto must have the shape [d_model] or [d_model, n_outputs], with "
            f"d_model={d_model}, not {list(matrix.shape)}"
        )
    return matrix[:, None] if matrix.ndim == 1 else matrix
