"""What is known of the card, its driver and the libraries on it."""

from __future__ import annotations

import subprocess
from importlib import metadata

import jax
import torch

from jax_revinc.engines.device import in_words
from revinc import UserError

NONE = "none"


def describe_card() -> dict[str, str]:
    """The card as each framework and NVIDIA's tool name it, and the versions on it, by name.

    Call it in a process of its own: JAX takes the card.
    """
    (device, *_) = jax.devices()
    on_gpu = device.platform == "gpu"
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    return {
        "JAX sees": in_words(device),
        "torch sees": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "card, memory, driver": asked_of_nvidia_smi(),
        "CUDA of JAX": " ".join(device.client.platform_version.split()) if on_gpu else NONE,
        "CUDA of torch": str(torch.version.cuda or NONE),
        "cuDNN of torch": str(cudnn or NONE),
        "NVIDIA's packages": nvidia_packages() or NONE,
    }


def asked_of_nvidia_smi() -> str:
    """The name, the memory and the driver of the first card, by NVIDIA's own tool."""
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown, because nvidia-smi does not run here"
    (first, *_) = told.stdout.strip().splitlines() or [""]
    return first if told.returncode == 0 and first else "unknown, because nvidia-smi lists no card"


def nvidia_packages() -> str:
    """The versions of NVIDIA's libraries and JAX's plugin, such as cuBLAS and cuDNN."""
    named = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    return ", ".join(
        f"{name} {version}"
        for name, version in sorted(named.items())
        if name and name.startswith(("nvidia-", "jax-cuda"))
    )


def require_gpu(card: dict[str, str]) -> None:
    """Raise a UserError unless both frameworks see a GPU.

    Args:
        card: what `describe_card` returned.
    """
    blind = [
        name
        for name, sees_none in (
            ("JAX", not card["JAX sees"].startswith("gpu")),
            ("torch", card["torch sees"] == "cpu"),
        )
        if sees_none
    ]
    if blind:
        raise UserError(
            f"{' and '.join(blind)} can't use a GPU here; run `make gpu` on a machine with an NVIDIA "
            "GPU and its driver, or add --dry-run to try every stage at a tiny size on the CPU"
        )
