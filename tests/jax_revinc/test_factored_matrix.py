"""Products, decompositions and indices of a FactoredMatrix are those of the matrix itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_revinc import FactoredMatrix, UserError


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def close(ours, expected):
    ours, expected = np.asarray(ours), np.asarray(expected)
    assert ours.shape == expected.shape
    assert ours.dtype == expected.dtype
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


LOW, HIGH = (2, 3, 5, 2), (3, 2, 4)  # factors of low rank; the leading axes broadcast
A, B = random(*LOW), random(*HIGH, seed=1)
AB = A @ B


@pytest.fixture
def matrix():
    return FactoredMatrix(A, B)


def test_leading_axes_broadcast(matrix):
    assert matrix.A.shape == (2, 3, 5, 2)
    assert matrix.B.shape == (2, 3, 2, 4)
    assert (matrix.shape, matrix.ndim, matrix.has_leading_dims) == ((2, 3, 5, 4), 4, True)
    assert (matrix.ldim, matrix.mdim, matrix.rdim) == (5, 2, 4)
    assert repr(matrix) == "FactoredMatrix: Shape((2, 3, 5, 4)), Hidden Dim(2)"
    close(matrix.AB, AB)


def products():
    """Every kind of product, and the inner dimension that is to be kept of it."""
    right, left = random(4, 6), random(3, 7, 5)
    both = FactoredMatrix(random(4, 1), random(1, 9))
    wide = FactoredMatrix(random(5, 8), random(8, 4))
    full = np.asarray(wide.AB)
    return {
        "by a vector": (lambda m: m @ random(4), AB @ random(4), None),
        "of a vector": (lambda m: random(5) @ m, random(5) @ AB, None),
        "by a matrix": (lambda m: m @ right, AB @ right, 2),
        "of matrices": (lambda m: left @ m, left @ AB, 2),
        "by a product": (lambda m: m @ both, AB @ np.asarray(both.AB), 1),
        "by a matrix, of high rank": (lambda _: wide @ right, full @ right, 4),
        "of a matrix, of high rank": (lambda _: left[0] @ wide, left[0] @ full, 5),
    }


@pytest.mark.parametrize("name", products())
def test_products(matrix, name):
    multiply, expected, inner = products()[name]
    found = multiply(matrix)
    if inner is None:
        close(found, expected)
    else:
        assert isinstance(found, FactoredMatrix)
        assert found.mdim == inner
        close(found.AB, expected)


@pytest.mark.parametrize(
    "scalar", [3, 0.5, np.float64(2), np.float32(2), np.array([2.0]), jnp.array(2.0)], ids=repr
)
def test_products_with_a_number(matrix, scalar):
    close((scalar * matrix).AB, AB * float(np.squeeze(scalar)))
    close((matrix * scalar).AB, AB * float(np.squeeze(scalar)))


def test_numbers_do_not_widen_a_matrix():
    single = FactoredMatrix(A.astype("float32"), B.astype("float32"))
    assert (single * np.sqrt(2)).AB.dtype == jnp.float32
    assert (single @ jnp.ones(4)).dtype == jnp.float32


def test_the_decomposition_multiplies_back(matrix):
    U, S, V = matrix.svd()
    close(S, np.linalg.svd(AB, compute_uv=False)[..., :2])
    close(np.asarray(U) * np.asarray(S)[..., None, :] @ np.asarray(V).mT, AB)
    close(np.asarray(U).mT @ np.asarray(U), np.broadcast_to(np.eye(2), (2, 3, 2, 2)))
    close(matrix.norm(), np.linalg.norm(AB, axis=(-2, -1)))
    close(matrix.make_even().AB, AB)
    assert matrix.svd() is matrix.svd()
    with pytest.warns(DeprecationWarning, match="Vh is V"):
        assert matrix.Vh is V


def test_collapsing_keeps_lengths(matrix):
    left, right = np.asarray(matrix.collapse_l()), np.asarray(matrix.collapse_r())
    close(left.mT @ left, AB.mT @ AB)
    close(right @ right.mT, AB @ AB.mT)


def test_eigenvalues_are_those_of_the_smaller_product():
    square = FactoredMatrix(random(5, 2), random(2, 5, seed=1))
    of_whole = np.linalg.eigvals(np.asarray(square.AB))
    largest = of_whole[np.argsort(-np.abs(of_whole))[:2]]
    found = np.asarray(square.eigenvalues)
    np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(largest), rtol=1e-10)
    half = FactoredMatrix(jnp.eye(2, dtype=jnp.bfloat16), jnp.eye(2, dtype=jnp.bfloat16))
    np.testing.assert_array_equal(half.eigenvalues, [1, 1])


def an_axis(size, is_leading):
    """Any index of one axis: a number, a slice, a list, an array or a mask."""
    numbers = st.integers(-size, size - 1)
    several = st.lists(numbers, min_size=1, max_size=2)
    return st.one_of(
        numbers,
        numbers.map(np.int64),
        st.just(slice(None)),
        st.slices(size).filter(lambda cut: len(range(size)[cut]) > 0),
        *(() if is_leading else (several, several.map(np.array))),
    )


@st.composite
def indices(draw):
    """An index of the product, as it is given, and its items for every axis."""
    n_given = draw(st.integers(0, 4))
    items = [draw(an_axis(AB.shape[axis], axis < 2)) for axis in range(n_given)]
    rest = [slice(None)] * (4 - n_given)
    dots = [Ellipsis] if draw(st.booleans()) else []
    return tuple(items + dots), items + rest


@settings(max_examples=40)
@given(indices())
def test_an_index_is_that_of_the_matrix(index):
    """Of rows and columns an int keeps its axis, since the rest is still a matrix."""
    given_index, (*leading, rows, columns) = index
    expected = AB[tuple(leading)]
    expected = expected[..., np.atleast_1d(np.arange(5)[rows]), :]
    expected = expected[..., np.atleast_1d(np.arange(4)[columns])]
    close(FactoredMatrix(A, B)[given_index].AB, expected)


def test_indices_with_new_axes_lists_masks_and_dots(matrix):
    close(matrix[None, 1].AB, AB[None, 1])
    close(matrix[0, None].AB, AB[0, None])
    close(matrix[[1, 0]].AB, AB[[1, 0]])
    close(matrix[:, [2, 0]].AB, AB[:, [2, 0]])
    close(matrix[np.array([True, False])].AB, AB[:1])
    close(matrix[np.tri(2, 3, dtype=bool)].AB, AB[np.tri(2, 3, dtype=bool)])
    close(matrix[..., 1].AB, AB[..., 1:2])
    close(matrix[1, ..., 0].AB, AB[1, ..., :1])
    close(jax.jit(lambda m, i: m[i, i, i].AB)(matrix, 1), AB[1, 1, 1:2])
    assert len(list(matrix)) == 2


@pytest.mark.parametrize(
    "index", [2, -3, (0, 3), (0, 0, 5), (0, 0, 0, 4), (0, 0, 0, 0, 0), (0, 0, 1, None), [0, 2]]
)
def test_an_index_out_of_range_is_an_error(matrix, index):
    with pytest.raises(IndexError):
        matrix[index]


def test_new_axes_and_corners(matrix):
    close(matrix.unsqueeze(1).AB, AB[:, None])
    close(matrix.unsqueeze(-3).AB, AB[:, :, None])
    close(matrix.get_corner(), AB[:3, :3, :3, :3])
    close(matrix.get_corner(1), AB[:1, :1, :1, :1])
    close(matrix.T.AB, AB.mT)


def test_it_passes_through_jit_vmap_grad_and_tree_map(matrix):
    with jax.enable_x64(True):
        close(jax.jit(lambda m: m)(matrix).AB, AB)
        close(jax.vmap(lambda m: m.norm())(matrix), matrix.norm())
        doubled = jax.tree.map(lambda factor: 2 * factor, matrix)
        gradient = jax.grad(lambda m: (m.AB**2).sum())(matrix)
    close(doubled.AB, 4 * AB)
    close(gradient.A, 2 * AB @ np.asarray(matrix.B).mT)
    assert repr(jax.tree.map(lambda _: None, matrix)) == "FactoredMatrix(None, None)"
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(matrix)]
    assert names == [".A", ".B"]


def test_a_decomposition_in_a_traced_function_is_not_kept(matrix):
    """The matrix outlives the function, whose traced values do not."""
    traced = jax.jit(lambda: matrix.S)()
    np.testing.assert_allclose(traced, matrix.S, rtol=1e-5)


MISTAKES = {
    "inner dimension": lambda m: FactoredMatrix(A, random(3, 4)),
    "do not broadcast": lambda m: FactoredMatrix(random(2, 3, 5), random(3, 5, 4)),
    "must be a matrix or several": lambda m: FactoredMatrix(random(3), random(3, 4)),
    "must be an array, not a list": lambda m: FactoredMatrix([[1.0]], random(1, 1)),
    r"shapes are \[2, 3, 5, 4\] @ \[5\]": lambda m: m @ random(5),
    r"shapes are \[2, 3, 5, 4\] @ \[3, 4\]": lambda m: m @ random(3, 4),
    r"shapes are \[4\] @ \[2, 3, 5, 4\]": lambda m: random(4) @ m,
    r"shapes are \[2, 3, 5, 4\] @ \[\]": lambda m: m @ np.array(2.0),
    "by one number, .*; use @": lambda m: m * random(4),
    "square matrix": lambda m: m.eigenvalues,
    r"before the rows .*, at 0\.\.2": lambda m: m.unsqueeze(3),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(matrix, message):
    with pytest.raises(UserError, match=message):
        MISTAKES[message](matrix)


def test_what_is_no_factor_is_left_to_python(matrix):
    for mistake in (lambda: matrix @ "W", lambda: "W" @ matrix, lambda: matrix * None):
        with pytest.raises(TypeError, match="unsupported operand"):
            mistake()
