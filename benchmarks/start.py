"""Times what a person waits for: imports, help, and a training until its weights and its page.

Every contender is a process of its own, and all are timed in turn, beside importing JAX.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.registry import installed_transformer_lens, no_fused_engine
from revinc.runs import REPORT, WEIGHTS

REFERENCE = "import jax, flax.nnx, optax"
WARM, COLD = "everything compiled before", "nothing compiled before"

Moments = dict[str, float]
"""Seconds from the start of a process to events in it, by title."""


def contenders(words: Sequence[str], home: Path) -> dict[str, Callable[[], Moments]]:
    """What is timed, by name: functions that start a process and return its moments.

    Args:
        words: flags of the training config.
        home: an empty folder for runs and caches.
    """
    imports = [
        REFERENCE,
        "import jax_revinc",
        "from jax_revinc import HookedTransformer, train",
    ]
    if version := installed_transformer_lens():
        imports.append("import transformer_lens")
    timed: dict[str, Callable[[], Moments]] = {
        statement: partial(of_process, label(statement, version), "-c", statement)
        for statement in imports
    }
    timed["help"] = partial(of_process, "jax-revinc --help", "-m", "jax_revinc", "--help")
    engines = ("xla",) if no_fused_engine() else ("xla", "fused")
    for engine in engines:
        timed[f"{engine}, warm"] = partial(of_training, engine, words, home, cold=False)
    for engine in ("auto", *engines):
        timed[f"{engine}, cold"] = partial(of_training, engine, words, home, cold=True)
    if version:
        timed["parity"] = partial(of_parity, home / "xla, warm", home)
    return timed


def label(statement: str, version: str) -> str:
    """The title of an import, with the version of TransformerLens."""
    return statement.replace("transformer_lens", f"transformer_lens ({version})")


def of_process(title: str, *arguments: str) -> Moments:
    """Seconds until a Python process with these arguments has ended."""
    begin = time.time()
    run(arguments, {})
    return {title: time.time() - begin}


def of_training(engine: str, words: Sequence[str], home: Path, *, cold: bool) -> Moments:
    """Seconds until ``jax-revinc train`` has written the weights and the page, and between these."""
    state = COLD if cold else WARM
    out = home / f"{engine}, {'cold' if cold else 'warm'}"
    caches = home / f"caches of {out.name}"
    if cold:
        shutil.rmtree(caches, ignore_errors=True)
    elif not caches.exists():
        of_training_into(out, caches, engine, words)
    weights, page = of_training_into(out, caches, engine, words)
    return {
        f"train, engine {engine}, to its weights, {state}": weights,
        f"train, engine {engine}, to its page, {state}": page,
        f"the page alone, engine {engine}, {state}": page - weights,
    }


def of_training_into(
    out: Path, caches: Path, engine: str, words: Sequence[str]
) -> tuple[float, float]:
    """Train into a folder; return the seconds to the weights and to the page."""
    shutil.rmtree(out, ignore_errors=True)
    begin = time.time()
    flags = ("--engine", engine, "--out", str(out), *words)
    run(("-m", "jax_revinc", "train", *flags), in_folder(caches))
    return (out / WEIGHTS).stat().st_mtime - begin, (out / REPORT).stat().st_mtime - begin


def of_parity(trained: Path, home: Path) -> Moments:
    """Seconds of ``python -m parity check`` of a run, with its default levels."""
    caches = home / "caches of parity"
    command = ("-m", "parity", "check", str(trained))
    if not caches.exists():
        run(command, in_folder(caches))
    begin = time.time()
    run(command, in_folder(caches))
    return {f"parity check, {WARM}": time.time() - begin}


def in_folder(caches: Path) -> dict[str, str]:
    """The environment in which compiled programs are kept in a folder."""
    return {"JAX_COMPILATION_CACHE_DIR": str(caches / "xla"), "JAX_REVINC_CACHE": str(caches)}


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run Python with these arguments.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )


def time_starts(
    words: Sequence[str], rounds: int, home: Path, follow: Callable[[str], None]
) -> dict[str, list[float]]:
    """Time every contender once per round; return the seconds by title, `REFERENCE` first.

    Args:
        words: flags of the training config.
        rounds: how often each is timed.
        home: an empty folder for runs and caches.
        follow: called with the name of each turn.
    """
    seconds: dict[str, list[float]] = {}
    timed = contenders(words, home)
    for _ in range(rounds):
        for name, moments in timed.items():
            follow(name)
            for title, moment in moments().items():
                seconds.setdefault(title, []).append(moment)
    return seconds
