import pytest


@pytest.fixture(scope="session")
def card():
    """A function from the name of a card in `cards/` to a device that is not there."""
    pytest.importorskip(
        "jax_cuda12_plugin", reason="only make test-gpu-compile installs JAX's plugin for GPUs"
    )
    from gpu_compiler import card_of

    return card_of
