"""The device that an engine runs on."""

from __future__ import annotations

import jax
import optax


def identity_on(device: jax.Device) -> dict[str, str]:
    """What runs on JAX must share for their bits to be the same, beside the engine."""
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "jax": jax.__version__,
        "optax": optax.__version__,
    }


def in_words(device: jax.Device) -> str:
    """What a device is called where a person reads it."""
    return f"{device.platform}: {device.device_kind}"
