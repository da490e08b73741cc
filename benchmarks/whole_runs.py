"""A whole run: from process start to weights on disk, compilation included."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.interleaving import Timing, interleave
from benchmarks.registry import installed_transformer_lens
from revinc.runs import WEIGHTS


def time_whole_runs(
    rounds: int, steps: int, home: Path, follow: Callable[[str], None] | None = None
) -> dict[str, Timing]:
    """Seconds of ``train`` for `steps` steps: JAX cold, JAX with a warm compilation cache, reference.

    Args:
        rounds: how often each is run.
        steps: of a run.
        home: an empty folder for runs and caches.
        follow: told which run it is.
    """

    def jax_cold() -> float:
        shutil.rmtree(home / "cache", ignore_errors=True)
        return train("jax_revinc", home, steps)

    contenders = {
        "JAX, nothing compiled before": jax_cold,
        "JAX, warm compilation cache": lambda: train("jax_revinc", home, steps),
    }
    if version := installed_transformer_lens():
        title = f"TransformerLens {version}"
        contenders[title] = lambda: train("torch_reference", home, steps)
    return interleave(contenders, rounds, follow)


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
