"""JAX devices by the names that torch gives them."""

from __future__ import annotations

from typing import Any

import jax

from revinc import UserError
from revinc.errors import shown

PLATFORMS = {"cpu": "cpu", "cuda": "gpu", "gpu": "gpu", "tpu": "tpu"}
"""JAX's platform for each type of device of torch's."""


def find_device(device: Any) -> Any:
    """A device of JAX's, from itself, from a sharding, or from torch's name of it ("cuda:1").

    None stays None: ``jax.device_put`` leaves an array where it is then.

    Raises:
        UserError: if this machine has no such device.
    """
    if isinstance(device, jax.Device | jax.sharding.Sharding | None):
        return device
    kind, _, number = str(device).partition(":")
    try:
        return jax.devices(PLATFORMS[kind])[int(number or 0)]
    except (KeyError, IndexError, ValueError, RuntimeError):
        here = ", ".join(f"{found.platform}:{found.id}" for found in jax.devices())
        raise UserError(
            f"JAX sees no device {shown(device)} here; give one of jax.devices() ({here})"
        ) from None
