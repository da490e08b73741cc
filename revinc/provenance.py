"""Where numbers come from: the packages and the source that made them."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

RECORDED_PACKAGES = ("jax-revinc", "numpy", "jax", "flax", "optax", "torch", "transformer-lens")


def installed_versions() -> dict[str, str]:
    """The versions of the packages that a run's numbers depend on, where installed."""
    versions = {}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def source_commit() -> str:
    """The commit of the source that runs, ``-dirty`` if it was changed since; empty outside its git checkout."""
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return ""
    describe = ["git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
    try:
        said = subprocess.run(describe, cwd=checkout, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return said.stdout.strip()
