"""Several processes, on one machine or many, that train one population."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax
from jax._src import distributed

from revinc import UserError
from revinc.cores import usable_cores
from revinc.validation import require_int

ANNOUNCED = "jax-revinc/announced"
"""The key under which the first process tells the others of the job what came of its preparations."""

SECONDS_TO_LEAVE = 1.0
"""How long the first process outstays its work, for JAX ends whoever is still there when it leaves."""


def use_cpu_devices(n_devices: int | None) -> None:
    """Let a CPU count as `n_devices` devices, one per core by default. Must come before JAX looks for any.

    Raises:
        UserError: for a number below 1, or if one is asked for when JAX has looked already.
    """
    if n_devices is not None:
        require_int("devices", n_devices, at_least=1)
    elif "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", n_devices or usable_cores())
    except RuntimeError as error:
        if n_devices is not None:
            raise UserError(f"the number of devices can't be set: {error}") from error


@contextmanager
def joined(coordinator: str | None, n_processes: int | None, process: int | None) -> Iterator[None]:
    """Within it this process is one of several; what is not given is taken from SLURM, MPI, GKE or a TPU pod.

    A process that died may be started again with the same command while the others go on. If the
    first one dies, which keeps the store, all end.

    Raises:
        UserError: if the others can't be found.
    """
    jax.config.update("jax_enable_recoverability", True)  # type: ignore[no-untyped-call]
    try:
        jax.distributed.initialize(coordinator, n_processes, process)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the other processes can't be joined: {one_line(error)}; outside a cluster, give "
            "--coordinator HOST:PORT, --processes and --process"
        ) from error
    try:
        yield
    finally:
        if distributed.global_state.process_id == 0:
            time.sleep(SECONDS_TO_LEAVE)
        jax.distributed.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def announced() -> Iterator[None]:
    """Lets `wait_for_first` return in the other processes when its body has ended, or raise what it raised."""
    try:
        yield
    except (UserError, OSError) as error:
        _announce(str(error))
        raise
    _announce("")


def wait_for_first() -> None:
    """Return when the first process has done what is to be done before the others begin.

    Raises:
        UserError: if it could not.
    """
    while True:
        with suppress(jax.errors.JaxRuntimeError):  # nothing is announced yet; Ctrl-C has its turn
            problem = _client().blocking_key_value_get(ANNOUNCED, 1000)
            break
    if problem:
        raise UserError(problem)


def _announce(problem: str) -> None:
    if jax.process_count() > 1:
        _client().key_value_set(ANNOUNCED, problem, allow_overwrite=True)


def _client() -> Any:
    # JAX has no public name for it. Its collectives, which have one, stop for good when a process dies.
    return distributed.global_state.client


def one_line(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())
