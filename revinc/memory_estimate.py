"""Lower bounds of the memory that a command needs, to refuse at once what can't fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from revinc.config import TrainConfig
from revinc.engine import EVALUATED_AT_ONCE, METRICS, chunk_capacity, evaluation_steps
from revinc.errors import UserError
from revinc.optimizer_fields import MOMENTS
from revinc.weights import parameter_count

BYTES_PER_STEP = 20
"""Bytes per step of a run: the losses of the batches, and the table of them at the end."""

BYTES_PER_MODEL = 200
"""Bytes per model of a population: a row of its table while the table is made."""

LIMITS_OF_GROUP = ("memory.max", "memory/memory.limit_in_bytes")
"""The files with the memory limit of a Linux container: of control groups version 2, and 1."""

RAN_OUT = ("RESOURCE_EXHAUSTED", "out of memory", "can't allocate memory")
"""Words in the errors of JAX, CUDA and torch when memory runs out."""

LESS_MEMORY = (
    "choose smaller sizes of the model, fewer models side by side, or a smaller batch_size"
)
"""The advice if memory runs out."""


def require_memory(what: str, needed: int, lower: str, available: int | None = None) -> None:
    """Raise a UserError if something, such as training, needs more memory than is available.

    Args:
        what: the part, in words.
        needed: the bytes that it needs at least.
        lower: the fields to make smaller, in words.
        available: the available bytes; by default those of this machine.
    """
    available = available_memory() if available is None else available
    if available is not None and needed > available:
        raise UserError(
            f"{what} needs at least {in_gigabytes(needed)} of memory, and only "
            f"{in_gigabytes(available)} is available; choose a smaller {lower}"
        )


def require_room_to_train(
    cfg: TrainConfig, n_models: int = 1, activations: bool = False, available: int | None = None
) -> None:
    """Raise a UserError if training with a config can't fit into memory.

    Args:
        cfg: the training config.
        n_models: the number of models that are trained side by side.
        activations: whether the engine holds the activations of a whole batch.
        available: the available bytes; by default those of this machine.
    """
    parts = {
        "d_model, d_mlp, n_layers or d_vocab": n_models * bytes_of_model(cfg),
        "number of steps": bytes_of_history(cfg),
    }
    if activations:
        held = max(bytes_of_gradient(cfg), bytes_of_evaluation(cfg))
        parts["batch_size, d_model, d_mlp, n_layers or n_ctx"] = n_models * held
    largest = max(parts, key=lambda part: parts[part])
    what = "training" if n_models == 1 else f"training {n_models:,} models side by side"
    lower = largest if n_models == 1 else f"width, {largest}"
    require_memory(what, sum(parts.values()), lower, available)


def bytes_of_model(cfg: TrainConfig) -> int:
    """The bytes that a model in training takes at least: weights, optimizer moments and batches."""
    of_weights = (1 + MOMENTS[cfg.optimizer]) * parameter_count(cfg.model) * _itemsize(cfg)
    return of_weights + 4 * cfg.batch_size * chunk_capacity(cfg)


def bytes_of_history(cfg: TrainConfig) -> int:
    """The bytes of memory that a run's losses take."""
    return BYTES_PER_STEP * cfg.steps


def bytes_of_gradient(cfg: TrainConfig) -> int:
    """The bytes that a batch's gradient takes at least: the activations of every block."""
    model, positions = cfg.model, cfg.task.sequences().shape[1] - 1
    neurons = 0 if model.attn_only else model.d_mlp
    per_block = positions * (model.d_model + neurons) + model.n_heads * positions**2
    return cfg.batch_size * model.n_layers * per_block * _itemsize(cfg)


def bytes_of_evaluation(cfg: TrainConfig) -> int:
    """The bytes that an evaluation takes at least: two copies of a batch's residual stream."""
    return 2 * min(len(cfg.task.sequences()), EVALUATED_AT_ONCE) * _bytes_of_stream(cfg)


def require_room_to_look_into(cfg: TrainConfig) -> None:
    """Raise a UserError if the activations that analyses cache can't fit into memory."""
    sequences = len(cfg.task.sequences())
    # The embeddings, and the residual stream before the attention and the MLP of every block.
    streams = 2 + 2 * cfg.model.n_layers
    what = f"caching the model's activations on all {sequences:,} sequences"
    require_memory(what, streams * sequences * _bytes_of_stream(cfg), "d_model or n_layers")


def bytes_of_outcome(cfg: TrainConfig) -> int:
    """The bytes of memory that a run's metrics at every evaluation take."""
    return 8 * len(METRICS) * len(evaluation_steps(cfg))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of Python, JAX or torch means that memory ran out."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in RAN_OUT)


def available_memory() -> int | None:
    """The most bytes that this process can still allocate; None if the system does not tell."""
    return min(_limits(), default=None)


def in_gigabytes(n_bytes: int) -> str:
    """A number of bytes as text, such as ``1.5 GB``."""
    # Integer arithmetic, because a float can't represent large numbers exactly.
    tenths = n_bytes // 10**8
    return f"{tenths // 10:,}.{tenths % 10} GB"


def _bytes_of_stream(cfg: TrainConfig) -> int:
    positions = cfg.task.sequences().shape[1] - 1
    return positions * cfg.model.d_model * _itemsize(cfg)


def _itemsize(cfg: TrainConfig) -> int:
    return np.dtype(cfg.model.dtype).itemsize


def _limits() -> Iterator[int]:
    yield from _of_machine()
    for file in LIMITS_OF_GROUP:
        yield from _numbers_in(Path("/sys/fs/cgroup", file))
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        yield soft


def _of_machine() -> Iterator[int]:
    """The machine's free memory and swap in bytes; if that is unknown, all of its memory."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        yield 1024 * (kilobytes["MemAvailable"] + kilobytes["SwapFree"])
    except (OSError, KeyError, ValueError, IndexError):
        names = getattr(os, "sysconf_names", {})
        if {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(names):
            yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _numbers_in(file: Path) -> Iterator[int]:
    try:
        yield int(file.read_text())
    except (OSError, ValueError):  # the file is missing, or holds the word max
        return
