"""A process for every contender, and the pipe on which it is asked to train.

In its own process a contender has its own threads, devices and peak memory. It waits while another
is asked, so all can be timed in turn. A request and its answer are a line of JSON each.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np

from benchmarks.contender import Job, Trainer
from revinc.dataset import make_dataset, rows_of_runs
from revinc.engine import chunk_capacity
from revinc.weights import read_safetensors

PATIENCE = 10.0
"""Seconds that a process gets to end by itself."""

LAST_LINES = 3
"""Lines of a process' output in the message that it failed."""


class WorkerFailed(Exception):
    """A contender's process raised an error, or died."""


class Worker:
    """The near end of the pipe: starts a process for a contender and sends it requests.

    Args:
        job: the training.
        caches: a folder for the caches of compilers; an empty one makes a cold start.
    """

    def __init__(self, job: Job, caches: Path) -> None:
        self.job = job
        self.started = time.perf_counter()
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        kept = {
            "JAX_COMPILATION_CACHE_DIR": str(caches / "jax"),
            "JAX_REVINC_CACHE": str(caches / "jax"),
            "TORCHINDUCTOR_CACHE_DIR": str(caches / "torch"),
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several processes share a GPU
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=os.environ | kept,
            text=True,
        )

    def ask(self, request: str, **fields: Any) -> dict[str, Any]:
        """Send a request that `Session.answer` knows; return the answer.

        Raises:
            WorkerFailed: with its error, or its last lines of output before it died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"request": request, **fields}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        return "its process died: " + " | ".join(lines[-LAST_LINES:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()  # the end of its requests
            self._process.wait(PATIENCE)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._said.close()


class Session:
    """The far end: makes a trainer at the first request, and trains."""

    def __init__(self) -> None:
        self._drawn = np.zeros((0, 0, 0), np.int32)

    def first(self, job: dict[str, Any], n_steps: int, n_losses: int) -> dict[str, Any]:
        """The first losses of up to `n_losses` models, and the seconds of two such calls.

        The first call includes compilation; imports are not counted.
        """
        self._job = Job.from_dict(job)
        contender = self._job.contender
        module, _, name = contender.make.partition(":")
        make = getattr(importlib.import_module(module), name)
        stored = read_safetensors(Path(self._job.weights))
        weights = {name: array[: contender.width] for name, array in stored.items()}
        batches = self._batches(n_steps)

        begin = time.perf_counter()
        self._trainer: Trainer = make(self._job.cfg, contender.width, **contender.options)
        self._trainer.start(weights)
        losses = self._advance(batches)
        between = time.perf_counter()
        self._trainer.start(weights)
        self._advance(batches)
        end = time.perf_counter()
        return {
            "losses": losses[:n_losses].tolist(),
            "once": between - begin,
            "again": end - between,
            "device": self._trainer.device,
        }

    def run(self, n_steps: int) -> dict[str, Any]:
        """The seconds of `n_steps` more steps."""
        batches = self._batches(n_steps)
        begin = time.perf_counter()
        self._advance(batches)
        return {"seconds": time.perf_counter() - begin}

    def memory(self) -> dict[str, Any]:
        """Peak memory in bytes: of the process, and of its accelerator if it has one."""
        return {"host": peak_host_bytes(), "device": self._trainer.device_bytes()}

    def _advance(self, batches: np.ndarray) -> np.ndarray:
        """Train on batches, in as many calls as `Trainer.advance` needs; return their losses."""
        capacity = chunk_capacity(self._job.cfg)
        chunks = range(0, batches.shape[1], capacity)
        losses = [self._trainer.advance(batches[:, at : at + capacity]) for at in chunks]
        return np.concatenate(losses, axis=1)

    def _batches(self, n_steps: int) -> np.ndarray:
        if self._drawn.shape[1] < n_steps:
            cfg, width = self._job.cfg, self._job.contender.width
            datasets = [make_dataset(cfg.with_seed(seed)) for seed in range(width)]
            self._drawn = rows_of_runs(datasets, 0, n_steps)
        return self._drawn[:, :n_steps]

    def answer(self, request: str, **fields: Any) -> dict[str, Any]:
        """The answer to a request, or the error."""
        answers: dict[str, Callable[..., dict[str, Any]]]
        answers = {"first": self.first, "run": self.run, "memory": self.memory}
        try:
            return answers[request](**fields)
        except Exception as error:  # whatever it is, the other end decides
            return {"error": f"{type(error).__name__}: {error}"}


def peak_host_bytes() -> int:
    """The peak memory of this process. (On Linux ``getrusage`` counts that of its parent too.)"""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (at for at in status.read_text().splitlines() if at.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer each line until the requests end."""
    session = Session()
    for line in requests:
        answers.write(json.dumps(session.answer(**json.loads(line))) + "\n")
        answers.flush()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not reach the pipe
    try:
        serve(sys.stdin, answers)
    except KeyboardInterrupt:
        return  # the other end got it too


if __name__ == "__main__":
    main()
