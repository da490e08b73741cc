"""A whole run: from process start to weights on disk, compilation included."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.interleaving import Timing, interleave
from revinc.runs import WEIGHTS


def time_whole_runs(rounds: int, steps: int) -> dict[str, Timing]:
    """Seconds of ``train`` for `steps` steps: JAX cold, JAX with a warm compilation cache, reference."""
    with TemporaryDirectory() as folder:
        home = Path(folder)

        def jax_cold() -> float:
            shutil.rmtree(home / "cache", ignore_errors=True)
            return train("jax_revinc", home, steps)

        contenders = {
            "JAX, nothing compiled before": jax_cold,
            "JAX, warm compilation cache": lambda: train("jax_revinc", home, steps),
            "TransformerLens 3.9": lambda: train("torch_reference", home, steps),
        }
        return interleave(contenders, rounds)


def train(program: str, home: Path, steps: int) -> float:
    """Run a training command in a process of its own; seconds until its weights were on disk.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    out = home / program
    shutil.rmtree(out, ignore_errors=True)
    begin = time.time()
    subprocess.run(
        [sys.executable, "-m", program, "train", "--out", out, "--steps", str(steps)],
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(home / "cache")},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return (out / WEIGHTS).stat().st_mtime - begin
