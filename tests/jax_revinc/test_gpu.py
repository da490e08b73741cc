"""What can be said about GPUs: the program lowers for them anywhere, and runs where there is one."""

import jax
import numpy as np
import pytest

from jax_revinc import TrainConfig, numerics, train
from jax_revinc.engines import make_engine
from jax_revinc.engines.compiled_programs import make_program_key
from jax_revinc.engines.xla import advance, count
from jax_revinc.optimizer import optimizer_settings
from jax_revinc.training import draw_weights
from revinc.batch_schedule import draw_batches
from revinc.dataset import make_dataset

CFG = TrainConfig(steps=200)


@pytest.fixture(scope="module")
def lower():
    """A function that lowers the training loop for a platform."""
    data, (_, rates) = make_dataset(CFG), optimizer_settings(CFG)
    batches = draw_batches(0, data.train_rows, CFG.batch_size, 0, 100)
    with numerics(CFG.model):
        state = make_engine(CFG).start(draw_weights(CFG))
        traced = advance.trace(
            make_program_key(CFG),
            rates,
            state,
            data.tokens,
            batches,
            100,
        )
    return lambda platform: traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_the_training_loop_lowers_for_other_devices(lower, platform):
    assert "stablehlo.while" in lower(platform)


def test_every_matmul_asks_for_full_precision(lower):
    """GPUs would use TF32 for float32 products, with 10 bits of mantissa, if they were not told."""
    products = [line for line in lower("cuda").splitlines() if "dot_general" in line]
    assert len(products) > 30
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_a_precision_that_the_user_chose_is_left():
    data = make_dataset(CFG)
    with jax.default_matmul_precision("bfloat16"), numerics(CFG.model):
        masks = data.train_mask[None]
        state = draw_weights(CFG), None
        text = count.lower(make_program_key(CFG), state, data.tokens, masks).as_text()
    assert "HIGHEST" not in text


@pytest.mark.gpu
def test_a_run_on_the_gpu_learns_like_one_on_the_cpu(tmp_path):
    on_gpu = train(CFG, tmp_path / "gpu")
    assert on_gpu.engine["platform"] == "gpu"
    with jax.default_device(jax.devices("cpu")[0]):
        on_cpu = train(CFG, tmp_path / "cpu")
    assert on_cpu.engine["platform"] == "cpu"
    # Rounding differs, and training is chaotic: only the first losses can be compared.
    np.testing.assert_allclose(on_gpu.losses["loss"][:20], on_cpu.losses["loss"][:20], rtol=1e-3)
