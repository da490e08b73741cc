"""Patching with functions of one's own gives what the compiled functions give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from jax_revinc import UserError, numerics
from jax_revinc.analysis import patching


def metric(logits):
    return (logits[:, -1, 1] - logits[:, -1, 3]).mean()


@pytest.fixture(scope="module")
def runs(model64, tokens):
    """The model, tokens of a corrupted run, and the cache of a clean one."""
    corrupted = (np.asarray(tokens) + 1) % 4
    return model64, corrupted, model64.run_with_cache(tokens)[1]


def test_it_gives_what_the_compiled_function_gives(runs):
    by_position = patching.generic_activation_patch(
        *runs, metric, patching.layer_pos_patch_setter, "resid_pre", ("layer", "pos")
    )
    compiled = patching.get_act_patch_resid_pre(*runs, metric)
    np.testing.assert_allclose(by_position, compiled, rtol=0, atol=1e-12)


def test_a_setter_of_ones_own_sees_concrete_arrays_and_indices(runs):
    seen = []

    def keep(activation, index, clean):
        seen.append((index, float(activation.sum()), clean.shape))

    table = pd.DataFrame({"layer": [1, 0], "pos": [2, 3]})
    found, indices = patching.generic_activation_patch(
        *runs, metric, keep, "attn_out", index_df=table, return_index_df=True
    )
    assert indices is table
    assert [index for index, *_ in seen] == [[1, 2], [0, 3]]
    model, corrupted, _ = runs
    with numerics(model.cfg):
        unpatched = metric(model(corrupted))
    np.testing.assert_allclose(found, [unpatched] * 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "either index_axis_names or index_df"),
        (
            {"index_axis_names": ("layer",), "index_df": pd.DataFrame()},
            "either index_axis_names or index_df",
        ),
        ({"index_axis_names": ("layer", "place")}, "index_axis_names"),
        ({"index_axis_names": ("layer",)}, r"index \[0\] must hold a layer and 1 more"),
        ({"index_df": pd.DataFrame({"layer": [7], "pos": [0]})}, "clean_cache lacks blocks.7"),
    ],
)
def test_mistakes_are_named(runs, given, message):
    with pytest.raises(UserError, match=message):
        patching.generic_activation_patch(
            *runs, metric, patching.layer_pos_patch_setter, "resid_pre", **given
        )
