"""What can be said about GPUs: the program lowers for them anywhere, and runs where there is one."""

import jax
import numpy as np
import pytest

from jax_revinc import TrainConfig, numerics, train
from jax_revinc.engines import XlaEngine
from jax_revinc.training import draw_weights
from revinc.schedule import draw_batches

CFG = TrainConfig(steps=200)


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_the_training_loop_lowers_for_other_devices(platform):
    engine = XlaEngine(CFG)
    state = engine.start(draw_weights(CFG))
    data = engine._dataset
    batches = draw_batches(0, data.train_rows, CFG.batch_size, 0, 100)
    lowered = engine._advance.trace(state, data.tokens, batches, 100).lower(
        lowering_platforms=(platform,)
    )
    assert "stablehlo.while" in lowered.as_text()


def test_every_matmul_asks_for_full_precision():
    """GPUs would use TF32 for float32 products, with 10 bits of mantissa, if they were not told."""
    engine = XlaEngine(CFG)
    with numerics(CFG.model):
        text = engine._count.lower(draw_weights(CFG), engine._dataset.tokens).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) > 10
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


@pytest.mark.gpu
def test_a_run_on_the_gpu_learns_like_one_on_the_cpu(tmp_path):
    on_gpu = train(CFG, tmp_path / "gpu")
    assert on_gpu.engine["platform"] == "gpu"
    with jax.default_device(jax.devices("cpu")[0]):
        on_cpu = train(CFG, tmp_path / "cpu")
    # Rounding differs, and training is chaotic: only the first losses can be compared.
    np.testing.assert_allclose(on_gpu.losses["loss"][:20], on_cpu.losses["loss"][:20], rtol=1e-3)
