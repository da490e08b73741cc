"""A description of the machine, its load, the packages and the source commit."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import torch

from revinc.cpu_cores import usable_cores
from revinc.provenance import installed_versions, source_commit


def describe_machine() -> dict[str, str]:
    """What timings depend on, in words, by name."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch sees"
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": f"{processor()} ({torch.backends.cpu.get_cpu_capability()})",
        "cores": str(usable_cores()),
        "memory": f"{memory_bytes() / 2**30:.0f} GiB",
        "GPU": gpu,
        "torch threads": str(torch.get_num_threads()),
        "load at the start": f"{os.getloadavg()[0]:.1f}",
        "date": time.strftime("%Y-%m-%d"),
        "Python": platform.python_version(),
        **installed_versions(),
        "commit": source_commit() or "unknown",
    }


def in_a_line(machine: dict[str, str]) -> str:
    """The description in one line."""
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def processor() -> str:
    """The name of the processor, if the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def memory_bytes() -> int:
    """The memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
