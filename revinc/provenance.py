"""Provenance of results: the versions of packages and the source that made them."""

from __future__ import annotations

import functools
import hashlib
import subprocess
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

RECORDED_PACKAGES = ("jax-revinc", "numpy", "jax", "flax", "optax", "torch", "transformer-lens")


def installed_versions() -> dict[str, str]:
    """The versions of the installed packages that a run's numbers depend on."""
    versions = {}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def source_commit() -> str:
    """The git commit of the source, with ``-dirty`` if files changed; empty outside a checkout."""
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return ""
    describe = ["git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
    try:
        result = subprocess.run(describe, cwd=checkout, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return result.stdout.strip()


@functools.cache
def source_digest(*packages: str) -> str:
    """A hash of all Python and C++ source of the given packages, to tell whether it changed."""
    digest = hashlib.sha256()
    for package in packages:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        for file in sorted([*folder.rglob("*.py"), *folder.rglob("*.hpp")]):
            digest.update(f"{package}/{file.relative_to(folder)}\n".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
