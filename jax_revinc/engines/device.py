"""Facts about the JAX device that an engine runs on: name, versions, free memory."""

from __future__ import annotations

import jax
import optax

from jax_revinc.engines import gpu


def identity_on(device: jax.Device) -> dict[str, str]:
    """The device's name, the versions of JAX and Optax and, on a GPU, how programs are compiled: runs
    with equal ones give bit-identical results on the same engine.
    """
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "jax": jax.__version__,
        "optax": optax.__version__,
        **gpu.identity_of(device),
    }


def device_memory(device: jax.Device | None = None) -> int | None:
    """The free memory of a device in bytes; None if it has no memory of its own, like a CPU.

    Args:
        device: by default the first of this process.
    """
    stats = (jax.local_devices()[0] if device is None else device).memory_stats()
    if not stats or "bytes_limit" not in stats:
        return None
    return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))


def in_words(device: jax.Device) -> str:
    """The platform and kind of a device as text for a person to read, such as ``cpu: cpu``."""
    return f"{device.platform}: {device.device_kind}"
