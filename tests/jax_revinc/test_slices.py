from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_revinc import UserError
from jax_revinc.slices import Slice

ARRAY = np.arange(24.0).reshape(2, 6, 2)


@pytest.mark.parametrize(
    ("given", "kept", "mode"),
    [
        (None, slice(None), "identity"),
        (3, 3, "int"),
        (-1, -1, "int"),
        (np.int64(2), 2, "int"),
        ((4,), slice(4), "slice"),
        ((1, 5, 2), slice(1, 5, 2), "slice"),
        ((2, None), slice(2, None), "slice"),
        (slice(-2, None), slice(-2, None), "slice"),
        ([4, 0, -1], [4, 0, -1], "array"),
        ([], [], "array"),
        (np.array([1, 1]), [1, 1], "array"),
        (np.arange(6) % 2 == 0, [0, 2, 4], "array"),
        (Slice(2), 2, "int"),
    ],
)
def test_a_slice_keeps_elements_of_any_axis(given, kept, mode):
    found = Slice(given)
    assert found.mode == mode
    for array in (ARRAY, jnp.asarray(ARRAY)):
        np.testing.assert_array_equal(found.apply(array, 1), ARRAY[:, kept])
        np.testing.assert_array_equal(found.apply(array, dim=-2), ARRAY[:, kept])
    assert found.drops_axis == (mode == "int")


def test_slices_agree_with_those_of_transformer_lens():
    theirs = pytest.importorskip("transformer_lens.utilities").Slice
    torch = pytest.importorskip("torch")
    for given in (None, 3, (4,), (1, 5), (1, 5, 2), [4, 1]):
        ours, other = Slice(given), theirs(given)
        assert (ours.mode, repr(ours)) == (other.mode, repr(other))
        np.testing.assert_array_equal(ours.indices(6), other.indices(6))
        np.testing.assert_array_equal(
            ours.apply(ARRAY, 1), other.apply(torch.tensor(ARRAY), 1).numpy()
        )
        np.testing.assert_array_equal(
            Slice.unwrap(given).indices(6), theirs.unwrap(given).indices(6)
        )
    np.testing.assert_array_equal(Slice(torch.tensor([3, 0])).apply(ARRAY, 1), ARRAY[:, [3, 0]])


def test_a_traced_index_drops_the_axis_and_traced_indices_keep_it():
    picked = jax.jit(lambda index: Slice(index).apply(jnp.asarray(ARRAY), 1))
    np.testing.assert_array_equal(picked(3), ARRAY[:, 3])
    np.testing.assert_array_equal(picked(np.array([2, 5])), ARRAY[:, [2, 5]])


@pytest.mark.parametrize("given", ["last", 1.5, True, (), (0, 3, 0), [1.5], [[1]], {1}, (0.5, 2)])
def test_what_is_no_slice_is_refused(given):
    with pytest.raises(UserError, match="invalid slice"):
        Slice(given)


def test_an_element_that_does_not_exist_is_refused():
    for given in (6, -7, [0, 6], np.zeros(5, bool)):
        with pytest.raises(UserError, match=r"the position .* does not exist; choose among 0\.\.5"):
            Slice(given).apply(ARRAY, 1, "position")
    with pytest.raises(UserError, match="max_ctx must be given"):
        Slice((1, 2)).indices()
