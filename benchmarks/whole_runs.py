"""Times whole runs, from process start to weights on disk, compilation included."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.interleaving import Timing, interleave
from benchmarks.registry import installed_transformer_lens, no_fused_engine
from jax_revinc.engines import PROGRAMS
from revinc.runs import WEIGHTS


def time_whole_runs(
    words: Sequence[str], rounds: int, home: Path, follow: Callable[[str], None] | None = None
) -> dict[str, Timing]:
    """Seconds of ``train``: JAX with each engine, cold and compiled before, and TransformerLens.

    Args:
        words: flags of the training config.
        rounds: how often each is run.
        home: an empty folder for runs and caches.
        follow: called with the title of each run.
    """

    def jax(engine: str, cold: bool) -> float:
        cache = home / f"cache-{engine}"
        if cold:
            shutil.rmtree(cache, ignore_errors=True)
        return train("jax_revinc", home, cache, "--engine", engine, *words)

    contenders: dict[str, Callable[[], float]] = {
        f"JAX, {engine} engine, {state}": partial(jax, engine, cold)
        for engine in (("xla",) if no_fused_engine() else PROGRAMS)
        for state, cold in (("nothing compiled before", True), ("compiled before", False))
    }
    if version := installed_transformer_lens():
        title = f"TransformerLens {version}"
        contenders[title] = lambda: train("torch_reference", home, home, *words)
    return interleave(contenders, rounds, follow)


def train(program: str, home: Path, cache: Path, *flags: str) -> float:
    """Run a training command in a process of its own; seconds until its weights were on disk.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    out = home / program
    shutil.rmtree(out, ignore_errors=True)
    begin = time.time()
    subprocess.run(
        [sys.executable, "-m", program, "train", "--out", out, *flags],
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_REVINC_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return (out / WEIGHTS).stat().st_mtime - begin
