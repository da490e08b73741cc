"""Several processes, on one machine or many, that train one population."""

from __future__ import annotations

import os

import jax

from revinc import UserError


def use_cpu_devices(n_devices: int | None) -> None:
    """Let a CPU count as `n_devices` devices, one per core by default. Must come before JAX looks for any.

    Raises:
        UserError: if JAX has looked already.
    """
    if n_devices is None and "xla_force_host_platform_device_count" in os.environ.get(
        "XLA_FLAGS", ""
    ):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        jax.config.update("jax_num_cpu_devices", n_devices or cores)
    except RuntimeError as error:
        raise UserError(f"the number of devices can't be set: {error}") from error


def join(coordinator: str | None, n_processes: int | None, process: int | None) -> None:
    """Make this process one of several; what is not given is taken from SLURM, MPI, GKE or a TPU pod.

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
            f"the other processes can't be joined: {error}; outside a cluster, give --coordinator "
            "HOST:PORT, --processes and --process"
        ) from error
