"""Matrices kept as a product of two, as TransformerLens' `FactoredMatrix`.

The circuits of heads are such products: of low rank, and too large to multiply out lightly.
"""

from __future__ import annotations

import warnings
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import GetAttrKey, register_pytree_with_keys_class
from jaxtyping import Complex, Float

from jax_revinc.compilation.numerical_settings import keeps_precision
from revinc.errors import UserError, shown
from revinc.validation import plain, require_int


class SVD(NamedTuple):
    """A singular value decomposition, ``U @ diag(S) @ V.T``, with the vectors in columns."""

    U: Float[Array, "... rows rank"]
    S: Float[Array, "... rank"]
    V: Float[Array, "... columns rank"]


@register_pytree_with_keys_class
class FactoredMatrix:
    """A matrix ``A @ B``, or several, that is kept as its two factors.

    It is a pytree of the factors, so it passes through ``jax.jit``, ``jax.vmap`` and ``jax.grad``.
    Products and decompositions keep the precision of the factors, also outside `numerics`.

    Args:
        A: the left factor [..., ldim, mdim].
        B: the right factor [..., mdim, rdim]. Leading axes broadcast.

    Raises:
        UserError: for factors that are no arrays of matrices, or whose shapes do not fit.
    """

    # numpy then leaves `array @ matrix` and `number * matrix` to this class.
    __array_ufunc__ = None

    def __init__(self, A: Any, B: Any) -> None:
        self.A, self.B = as_factors(A, B)

    def tree_flatten_with_keys(self) -> tuple[Any, None]:
        return ((GetAttrKey("A"), self.A), (GetAttrKey("B"), self.B)), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Any, Any]) -> FactoredMatrix:
        matrix = cls.__new__(cls)  # unchecked: transformations of JAX put other things there
        matrix.A, matrix.B = children
        return matrix

    @property
    def ldim(self) -> int:
        """The number of rows of the matrix."""
        return self.A.shape[-2]

    @property
    def mdim(self) -> int:
        """The inner dimension, which bounds the rank."""
        return self.A.shape[-1]

    @property
    def rdim(self) -> int:
        """The number of columns of the matrix."""
        return self.B.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the product, [..., ldim, rdim]."""
        return (*self.A.shape[:-1], self.rdim)

    @property
    def ndim(self) -> int:
        """The number of axes of the product."""
        return len(self.shape)

    @property
    def has_leading_dims(self) -> bool:
        """Whether these are several matrices."""
        return self.ndim > 2

    @property
    def pair(self) -> tuple[Float[Array, "... ldim mdim"], Float[Array, "... mdim rdim"]]:
        """The factors, (A, B)."""
        return self.A, self.B

    def __repr__(self) -> str:
        if not (hasattr(self.A, "shape") and hasattr(self.B, "shape")):
            return f"FactoredMatrix({self.A!r}, {self.B!r})"
        return f"FactoredMatrix: Shape({self.shape}), Hidden Dim({self.mdim})"

    @property
    @keeps_precision
    def AB(self) -> Float[Array, "... ldim rdim"]:
        """The matrix, multiplied out."""
        return self.A @ self.B

    @property
    @keeps_precision
    def BA(self) -> Float[Array, "... mdim mdim"]:
        """The product of the factors the other way round, of a square matrix.

        Raises:
            UserError: if the matrix is not square.
        """
        if self.ldim != self.rdim:
            raise UserError(f"BA and eigenvalues need a square matrix, not {list(self.shape)}")
        return self.B @ self.A

    @property
    @keeps_precision
    def T(self) -> FactoredMatrix:
        """The transposed matrix, or matrices."""
        return FactoredMatrix(self.B.mT, self.A.mT)

    @keeps_precision
    def __matmul__(self, other: Any) -> Any:
        """The product with a vector [rdim], a matrix [..., rdim, columns] or a FactoredMatrix.

        A vector gives an array [..., ldim]; the others give a FactoredMatrix, with the smaller of
        the two inner dimensions.

        Raises:
            UserError: if the shapes do not fit.
        """
        if isinstance(other, FactoredMatrix):
            return (self @ other.A) @ other.B
        if not is_array(other):
            return NotImplemented
        other = jnp.asarray(other)
        if self.rdim not in other.shape[-2:][:1]:  # the rows of a matrix, the length of a vector
            raise no_product(self.shape, other.shape)
        if other.ndim == 1:
            return apply(self.A, apply(self.B, other))
        if self.rdim > self.mdim:
            return FactoredMatrix(self.A, self.B @ other)
        return FactoredMatrix(self.AB, other)

    @keeps_precision
    def __rmatmul__(self, other: Any) -> Any:
        """The product with a vector [ldim] or a matrix [..., rows, ldim] on the left."""
        if not is_array(other):
            return NotImplemented
        other = jnp.asarray(other)
        if self.ldim not in other.shape[-1:]:
            raise no_product(other.shape, self.shape)
        if other.ndim == 1:
            return apply(self.B.mT, apply(self.A.mT, other))
        if self.ldim > self.mdim:
            return FactoredMatrix(other @ self.A, self.B)
        return FactoredMatrix(other, self.AB)

    @keeps_precision
    def __mul__(self, scalar: Any) -> FactoredMatrix:
        """The matrix times a number, or times an array that holds one number.

        Raises:
            UserError: for an array of several numbers.
        """
        scalar = plain(scalar) if isinstance(scalar, np.generic) else scalar
        if is_array(scalar):
            scalar = jnp.asarray(scalar)
            if scalar.size != 1:
                raise UserError(
                    "* multiplies a FactoredMatrix by one number, not by an array of shape "
                    f"{list(scalar.shape)}; use @ for a product of matrices"
                )
        elif not isinstance(scalar, int | float):
            return NotImplemented
        return FactoredMatrix(self.A * scalar, self.B)

    __rmul__ = __mul__

    @keeps_precision
    def svd(self) -> SVD:
        """The singular value decomposition, largest value first: ``U @ diag(S) @ V.T``.

        It has as many values as the smallest of ldim, mdim and rdim. The sign of a pair of vectors
        is arbitrary. Values that are no tracers are kept, and not computed again.
        """
        kept = vars(self).get("_svd")
        if kept is None:
            kept = decompose(self.A, self.B)
            if not isinstance(kept.S, jax.core.Tracer):
                self._svd = kept
        return kept

    @property
    def U(self) -> Float[Array, "... ldim rank"]:
        """The left singular vectors, in columns."""
        return self.svd().U

    @property
    def S(self) -> Float[Array, "... rank"]:
        """The singular values, largest first."""
        return self.svd().S

    @property
    def V(self) -> Float[Array, "... rdim rank"]:
        """The right singular vectors, in columns."""
        return self.svd().V

    @property
    def Vh(self) -> Float[Array, "... rdim rank"]:
        """The right singular vectors, under the misleading name that TransformerLens deprecates."""
        warnings.warn(
            "FactoredMatrix.Vh is V, not its transpose, as in TransformerLens; use V, or V.mT",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.V

    @property
    @keeps_precision
    def eigenvalues(self) -> Complex[Array, "... mdim"]:
        """The eigenvalues of ``BA``, which are those of the matrix apart from zeros.

        JAX computes them on CPUs and GPUs.

        Raises:
            UserError: if the matrix is not square.
        """
        BA = self.BA
        has_half_precision = BA.dtype.itemsize == 2
        return jnp.linalg.eigvals(BA.astype(jnp.float32) if has_half_precision else BA)

    @keeps_precision
    def norm(self) -> Float[Array, ...]:
        """The Frobenius norm of each matrix."""
        return jnp.linalg.norm(self.AB, axis=(-2, -1))

    @keeps_precision
    def make_even(self) -> FactoredMatrix:
        """The same matrix, with the roots of the singular values in each factor."""
        root = jnp.sqrt(self.S)
        return FactoredMatrix(self.U * root[..., None, :], root[..., :, None] * self.V.mT)

    @keeps_precision
    def collapse_l(self) -> Float[Array, "... rank rdim"]:
        """``diag(S) @ V.T``: the matrix without the orthogonal factor U on its left."""
        return self.S[..., :, None] * self.V.mT

    @keeps_precision
    def collapse_r(self) -> Float[Array, "... ldim rank"]:
        """``U @ diag(S)``: the matrix without the orthogonal factor V on its right."""
        return self.U * self.S[..., None, :]

    @keeps_precision
    def get_corner(self, k: int = 3) -> Float[Array, ...]:
        """The first `k` entries along every axis of the product."""
        leading = (slice(k),) * (self.ndim - 2)
        return self.A[(*leading, slice(k))] @ self.B[(*leading, slice(None), slice(k))]

    @keeps_precision
    def unsqueeze(self, k: int) -> FactoredMatrix:
        """The matrices with a new leading axis of size 1, at position `k`.

        Raises:
            UserError: for a position that is not before the rows.
        """
        n_leading = self.ndim - 2
        at = require_int("the position of a new axis", k)
        at += self.ndim + 1 if at < 0 else 0
        if not 0 <= at <= n_leading:
            raise UserError(
                f"unsqueeze puts a new axis before the rows of a FactoredMatrix, at 0..{n_leading}"
                f" for shape {list(self.shape)}, not at {k}"
            )
        return FactoredMatrix(jnp.expand_dims(self.A, at), jnp.expand_dims(self.B, at))

    @keeps_precision
    def __getitem__(self, index: Any) -> FactoredMatrix:
        """The matrices at an index of the product; an int keeps the axis of rows or columns.

        Leading axes are indexed as those of an array. Rows and columns are picked after them.

        Raises:
            IndexError: for too many indices, or an int outside its axis.
        """
        leading, rows, columns = split_index(index, self.shape)
        A, B = self.A[leading], self.B[leading]
        return FactoredMatrix(A[..., rows, :], B[..., columns])


def is_array(value: Any) -> bool:
    """Whether `value` is an array, or a Flax variable that holds one."""
    return isinstance(value, Array | np.ndarray) or hasattr(value, "__jax_array__")


@keeps_precision
def as_factors(
    A: Any, B: Any
) -> tuple[Float[Array, "... ldim mdim"], Float[Array, "... mdim rdim"]]:
    """Two factors as JAX arrays, of the same leading axes.

    Raises:
        UserError: for factors that are no arrays of matrices, or whose shapes do not fit.
    """
    A, B = as_matrices("A", A), as_matrices("B", B)
    if A.shape[-1] != B.shape[-2]:
        raise UserError(
            "a FactoredMatrix needs factors of one inner dimension, but A has shape "
            f"{list(A.shape)} and B {list(B.shape)}"
        )
    try:
        leading = jnp.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    except ValueError:
        raise UserError(
            f"the leading axes of A {list(A.shape)} and B {list(B.shape)} do not broadcast; "
            "give both factors the same, or axes of size 1"
        ) from None
    return (
        jnp.broadcast_to(A, leading + A.shape[-2:]),
        jnp.broadcast_to(B, leading + B.shape[-2:]),
    )


def as_matrices(name: str, factor: Any) -> Float[Array, "... rows columns"]:
    """A factor as a JAX array.

    Raises:
        UserError: if it is no array, or has fewer than two axes.
    """
    if not is_array(factor):
        raise UserError(f"the factor {name} must be an array, not a {type(factor).__name__}")
    factor = jnp.asarray(factor)
    if factor.ndim < 2:
        raise UserError(
            f"the factor {name} must be a matrix or several, [..., rows, columns], not "
            f"{list(factor.shape)}"
        )
    return factor


def no_product(left: tuple[int, ...], right: tuple[int, ...]) -> UserError:
    """An error for a product of shapes that do not fit."""
    return UserError(
        f"a product needs as many columns on the left as rows on the right, but the shapes are "
        f"{list(left)} @ {list(right)}"
    )


def apply(
    matrices: Float[Array, "... rows columns"], vectors: Float[Array, "... columns"]
) -> Float[Array, "... rows"]:
    """The product of each matrix with one vector for all, or with its own."""
    return (matrices @ vectors[..., None])[..., 0]


def decompose(A: Float[Array, "... ldim mdim"], B: Float[Array, "... mdim rdim"]) -> SVD:
    """The singular value decomposition of ``A @ B``, without multiplying the factors."""
    of_A, of_B = svd(A), svd(B)
    middle = svd((of_A.S[..., :, None] * of_A.V.mT) @ (of_B.U * of_B.S[..., None, :]))
    return SVD(of_A.U @ middle.U, middle.S, of_B.V @ middle.V)


def svd(matrices: Float[Array, "... rows columns"]) -> SVD:
    """The singular value decomposition of each matrix, of as many values as its shorter side."""
    U, S, Vh = jnp.linalg.svd(matrices, full_matrices=False)
    return SVD(U, S, Vh.mT)


def split_index(index: Any, shape: tuple[int, ...]) -> tuple[tuple[Any, ...], Any, Any]:
    """Split an index of matrices of `shape` into that of the leading axes, of rows and of columns.

    Raises:
        IndexError: for too many indices, an int outside its axis, or a new axis after the rows.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    n_missing = len(shape) - sum(map(n_axes, items))
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if n_missing < 0 or len(dots) > 1:
        raise IndexError(f"{shown(index)} is too long an index for shape {list(shape)}")
    at = dots[0] if dots else len(items)
    items[at : at + len(dots)] = [slice(None)] * n_missing
    rows, columns = items[-2:]
    if not n_axes(rows) == n_axes(columns) == 1:
        raise IndexError(f"{shown(index)} puts a new axis after the leading ones of {list(shape)}")
    sizes = iter(shape)
    checked = [check_bounds(item, *islice(sizes, n_axes(item))) for item in items]
    return tuple(checked[:-2]), as_several(checked[-2]), as_several(checked[-1])


def n_axes(item: Any) -> int:
    """The number of axes that one item of an index stands for."""
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if getattr(item, "dtype", None) == np.dtype(bool) else 1


def check_bounds(item: Any, *sizes: int) -> Any:
    """One item of an index, of axes of these sizes; JAX would clip what is out of range.

    Raises:
        IndexError: for a number outside its axis. Traced ones are not checked.
    """
    if isinstance(item, slice | jax.core.Tracer | None) or getattr(item, "dtype", "") == "bool":
        return item
    numbers, (size,) = np.asarray(item), sizes
    if np.any((numbers < -size) | (numbers >= size)):
        raise IndexError(f"index {shown(item)} is out of range for an axis of {size}")
    return numbers if numbers.ndim else int(numbers)


def as_several(item: Any) -> Any:
    """One item of an index, with a single number as the only one of several."""
    if isinstance(item, slice):
        return item
    return jnp.atleast_1d(item) if isinstance(item, jax.core.Tracer) else np.atleast_1d(item)
