"""Composition scores: how much of what one matrix writes another one reads."""

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from jax_revinc.compilation.numerical_settings import keeps_precision
from jax_revinc.weights.factored_matrix import FactoredMatrix
from revinc.errors import UserError


@keeps_precision
def composition_scores(
    left: FactoredMatrix, right: FactoredMatrix, broadcast_dims: bool = True
) -> Float[Array, ...]:
    """The scores ``|left @ right| / (|left| |right|)``, in Frobenius norms.

    See Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".

    Args:
        left: the matrices that write [..., rows, middle].
        right: the matrices that read [..., middle, columns].
        broadcast_dims: score every left matrix with every right one, with the leading axes of both;
            else score them in pairs, whose leading axes broadcast.

    Raises:
        UserError: if the matrices can't be multiplied.
    """
    if left.rdim != right.ldim:
        raise UserError(
            "composition scores need matrices whose product exists, but the shapes are "
            f"{list(left.shape)} and {list(right.shape)}"
        )
    if broadcast_dims:
        n_of_left, n_of_right = left.ndim - 2, right.ndim - 2
        for axis in range(n_of_left):
            right = right.unsqueeze(axis)
        for axis in range(n_of_right):
            left = left.unsqueeze(n_of_left + axis)
    return (left @ right).norm() / (left.norm() * right.norm())
