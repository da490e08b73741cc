"""The programs for a GPU, run on a CPU: what they compute, and when they are chosen."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from populations import RECIPE

from jax_revinc.engines import gpu, make_engine, make_population_engine
from jax_revinc.engines.device import identity_on
from jax_revinc.training import draw_weights
from revinc.dataset import make_dataset

WIDE = dataclasses.replace(RECIPE, model=RECIPE.model.replace(dtype="float64"))
A_GPU = SimpleNamespace(
    platform="gpu",
    device_kind="NVIDIA H100 80GB HBM3",
    client=SimpleNamespace(platform_version="PJRT C API\ncuda 12090"),
)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """A function after which engines take every array for one on a GPU."""
    return lambda: monkeypatch.setattr(gpu, "is_on_gpu", lambda arrays: True)


def one_run():
    engine, data = make_engine(WIDE), make_dataset(WIDE)
    state, losses = engine.advance(engine.start(draw_weights(WIDE)), data.rows(0, 12))
    return losses, engine.weights(state), engine.evaluate(state)


def two_runs():
    engine, data = make_population_engine(WIDE, width=2), make_dataset(WIDE)
    weights = {name: np.stack([w, w]) for name, w in draw_weights(WIDE).items()}
    rows = np.stack([data.rows(0, 12), data.rows(12, 24)])
    state, losses = engine.advance(engine.start([data, data], weights), rows)
    return losses, engine.weights(state), engine.evaluate(state)


@pytest.mark.parametrize("train", [one_run, two_runs])
def test_a_gpus_program_trains_as_any_other_does(train, as_on_a_gpu):
    losses, weights, metrics = train()
    as_on_a_gpu()
    on_gpu_losses, on_gpu_weights, on_gpu_metrics = train()
    np.testing.assert_allclose(on_gpu_losses, losses, rtol=0, atol=1e-10)
    for name, w in weights.items():
        # The gradient of b_K is rounding noise, and Adam divides by its size, or at least by 1e-8.
        tolerance = 1e-8 if name.endswith("b_K") else 1e-11
        np.testing.assert_allclose(on_gpu_weights[name], w, rtol=0, atol=tolerance, err_msg=name)
    for name, value in metrics.items():
        np.testing.assert_allclose(on_gpu_metrics[name], value, rtol=1e-9)


def test_only_what_lies_on_a_gpu_runs_its_program():
    program = gpu.OnItsDevice(elsewhere=lambda *_: "elsewhere", on_gpu=lambda *_: "on a GPU")
    assert program(np.zeros(2), {"w": jnp.zeros(2)}, 3) == "elsewhere"
    assert not gpu.is_on_gpu((np.zeros(2), jnp.zeros(2)))


def test_the_identity_of_a_run_on_a_gpu_says_how_its_programs_were_compiled():
    identity = identity_on(A_GPU)
    assert identity["compiler_options"] == (
        "xla_gpu_autotune_level=0 xla_gpu_enable_triton_gemm=False"
    )
    assert identity["cuda"] == "PJRT C API cuda 12090"
    assert identity["cublas"]


def test_the_identity_of_a_run_on_a_cpu_is_what_it_was():
    (cpu, *_) = jax.devices("cpu")
    assert list(identity_on(cpu)) == ["platform", "device", "jax", "optax"]


def test_cublas_is_named_by_its_version_or_as_the_systems(monkeypatch):
    monkeypatch.setattr(gpu, "CUBLAS", ("no-such-distribution", "numpy"))
    assert gpu.cublas_version() == np.__version__
    monkeypatch.setattr(gpu, "CUBLAS", ("no-such-distribution",))
    assert gpu.cublas_version() == "of the system"
