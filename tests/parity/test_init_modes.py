"""Initial weights are spread as TransformerLens spreads its own, in every mode."""

import math

import jax
import numpy as np
import pytest
from scipy import stats

from jax_revinc import HookedTransformerConfig
from jax_revinc.weights.init import init_params
from revinc.model_config import INIT_MODES
from torch_reference import adapter
from torch_reference.installed_transformer_lens import WORLD

FALSE_ALARM = 1e-9

LARGE = {"n_layers": 1, "d_model": 48, "d_head": 20, "n_heads": 4, "n_key_value_heads": 2}
LARGE |= {"d_mlp": 70, "d_vocab": 40, "n_ctx": 30, "gated_mlp": True}


@pytest.mark.skipif(WORLD != "3.9", reason="4.x draws its weights otherwise")
@pytest.mark.parametrize("initializer_range", [None, 0.6])
@pytest.mark.parametrize("mode", INIT_MODES)
def test_weights_are_spread_as_theirs(mode, initializer_range):
    cfg = HookedTransformerConfig(**LARGE, init_mode=mode, initializer_range=initializer_range)
    ours = init_params(cfg, jax.random.key(0))
    theirs = adapter.read_weights(adapter.make_model(cfg, seed=0), cfg)
    drawn = [name for name in ours if "W_" in name]
    assert len(drawn) == 10
    tail = FALSE_ALARM / len(drawn) / 2
    for name in ours:
        mine, their = np.asarray(ours[name], np.float64).ravel(), theirs[name].ravel()
        if name not in drawn:
            assert np.array_equal(mine, their), name
            continue
        assert stats.ks_2samp(mine, their).pvalue > tail, name
        # The two-sample test hardly sees a scale that is off by a few percent; a ratio of variances does.
        n = mine.size
        kurtosis = 1.8 if mode.endswith("uniform") else 3.0
        deviation = math.sqrt(2 * (kurtosis - 1) / n)
        assert abs(math.log(mine.var() / their.var())) < stats.norm.isf(tail) * deviation, name
        if mode.endswith("uniform"):
            assert abs(mine).max() == pytest.approx(abs(their).max(), rel=40 / n), name
