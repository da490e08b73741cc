"""The CPU that a program is compiled for: what it can do, and how wide its vectors are."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

BYTES_OF_VECTORS = {"avx512f": 64, "avx2": 32}
BYTES_OF_SHORT_VECTORS = 16  # SSE, NEON


@functools.cache
def cpu_features() -> frozenset[str]:
    """The instruction sets of this CPU by the system's names, in lower case; empty if the system won't tell."""
    try:
        said = _sysctl() if sys.platform == "darwin" else _first_of_cpuinfo()
    except OSError:
        return frozenset()
    return frozenset(said.lower().split())


def _first_of_cpuinfo() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:  # x86 and ARM
            return value
    return ""


def _sysctl() -> str:
    # An x86 lists its features; an Apple chip has a name that implies them.
    names = ("features", "leaf7_features", "brand_string")
    command = ["sysctl", "-n", *(f"machdep.cpu.{name}" for name in names)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def native_flags() -> list[str]:
    """The compiler's flags for this very CPU; none, which suits all CPUs of its kind, if the features are unknown."""
    if not cpu_features():
        return []
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return ["-mcpu=native"]
    # Some compilers halve 64-byte vectors on CPUs that once slowed down for them.
    return ["-march=native", "-mprefer-vector-width=512"]


def lane_width(dtype: npt.DTypeLike, features: frozenset[str] | None = None) -> int:
    """How many numbers of `dtype` (float32 or float64) fill one vector of this CPU.

    More lanes than that spill registers: a program with 16 lanes runs 3.7 times slower on AVX2 than one with 8.

    Args:
        features: of another CPU, which the caller's flags name to the compiler: ``-march=haswell`` stops at
            ``{"avx2"}``, ``-march=nehalem`` at ``{"sse4_2"}``; every x86 compiler knows both.
    """
    known = cpu_features() if features is None else features
    widths = [width for feature, width in BYTES_OF_VECTORS.items() if feature in known]
    return max(widths, default=BYTES_OF_SHORT_VECTORS) // np.dtype(dtype).itemsize
