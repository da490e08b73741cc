"""Join several processes, on one machine or many, in a job that trains one population."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax
from jax._src import clusters, distributed
from rich.console import Console

from jax_revinc.population.process_relay import Relay
from revinc import UserError
from revinc.cpu_cores import usable_cores
from revinc.errors import one_line
from revinc.validation import require_int

T = TypeVar("T")

SECONDS_TO_JOIN = 300.0
"""The longest time that a process waits for the others."""

SECONDS_TO_LEAVE = 1.0
"""The time that the first process waits at its end, because JAX ends the others when it exits."""

LOST = 2
"""The exit status of a process whose job has lost its first process."""


def use_cpu_devices(n_devices: int | None) -> None:
    """Make JAX divide the CPU into `n_devices` devices, by default one per core.

    Call it before JAX looks for devices.

    Raises:
        UserError: for a number below 1, or for any number if JAX has looked for devices already.
    """
    if n_devices is not None:
        require_int("devices", n_devices, at_least=1)
    elif "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", n_devices or usable_cores())
    except RuntimeError as error:
        if n_devices is not None:
            raise UserError(f"the number of CPU devices can't be set: {error}") from error


class Place(NamedTuple):
    """What a process needs to join a job: the job's address and its own number; None if not known.

    Attributes:
        address: the address at which the first process listens.
        n_processes: the number of processes.
        process: the number of this process.
        devices: the numbers of this machine's devices that it uses; None for all.
    """

    address: str | None
    n_processes: int | None
    process: int | None
    devices: list[int] | None


@contextmanager
def join_job(
    coordinator: str | None, n_processes: int | None, process: int | None
) -> Iterator[None]:
    """A context in which this process is one of several that train together.

    A process that died may be started again with the same command while the others go on. If the
    first process dies, all others end with a sentence and the exit status `LOST`.

    Args:
        coordinator: the address of the first process. SLURM, MPI, GKE or a TPU pod provide this
            and the other arguments, if they are None.
        n_processes: the number of processes.
        process: the number of this process.

    Raises:
        UserError: if the other processes can't be found.
    """
    jax.config.update("jax_enable_recoverability", True)  # type: ignore[no-untyped-call]
    # That service treats SIGTERM as a warning, so the process would not end.
    jax.config.update("jax_enable_preemption_service", False)  # type: ignore[no-untyped-call]
    try:
        relay = run_interruptibly(lambda: join(find_place(coordinator, n_processes, process)))
    except (ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"the other processes can't be joined: {one_line(error)}; outside a cluster, give "
            "--coordinator HOST:PORT, --processes and --process"
        ) from error
    try:
        yield
    finally:
        if distributed.global_state.process_id == 0:
            time.sleep(SECONDS_TO_LEAVE)
        if relay:
            relay.let_go()
        jax.distributed.shutdown()  # type: ignore[no-untyped-call]
        if relay:
            relay.close()


def find_place(coordinator: str | None, n_processes: int | None, process: int | None) -> Place:
    """Find the job's address and this process' number in arguments, environment or cluster."""
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    numbers = os.environ.get("JAX_LOCAL_DEVICE_IDS")
    devices = [int(number) for number in numbers.split(",")] if numbers else None
    detect: Any = clusters.ClusterEnv.auto_detect_unset_distributed_params
    return Place(*detect(coordinator, n_processes, process, devices, None, int(SECONDS_TO_JOIN)))


def join(place: Place) -> Relay | None:
    """Connect to the job's first process, or become it; return the connection's `Relay`, if any.

    Raises:
        ValueError, RuntimeError, OSError: if the place is not valid, the first process does not
            answer, or this one can't listen.
    """
    address, bind, relay = place.address, None, None
    if place.address and place.process is not None and place.process < (place.n_processes or 0):
        host, port = resolve(place.address)
        if place.process == 0:
            bind = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS") or join_address(host, port)
            check_free(*resolve(bind))
        else:
            wait_until_there(host, port)
            relay = Relay(host, port, lambda: end(LOST_SENTENCE, LOST))
            address = relay.address
    jax.distributed.initialize(
        address,
        place.n_processes,
        place.process,
        local_device_ids=place.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=10 * int(SECONDS_TO_JOIN),  # our own timeout is shorter
        coordinator_bind_address=bind,
    )
    return relay


LOST_SENTENCE = (
    "the first process of this training has ended or can't be reached any more; finished models "
    "are kept; to go on, start all processes again, with --resume"
)


def resolve(address: str) -> tuple[str, int]:
    """Resolve an address such as ``localhost:8476`` to an IP address and a port.

    Raises:
        OSError: if no host has that name.
    """
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise OSError(f"there is no host of the name {host} ({error.strerror})") from error
    number = found[0][4]
    return str(number[0]), int(number[1])


def join_address(host: str, port: int) -> str:
    """The text of an address, such as ``127.0.0.1:8476``, from an IP address and a port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_free(host: str, port: int) -> None:
    """Raise an OSError if this process can't listen at an address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(f"this process can't listen at {join_address(host, port)} ({why})") from error


def wait_until_there(host: str, port: int) -> None:
    """Wait until a process listens at an address.

    Raises:
        OSError: if none does within `SECONDS_TO_JOIN`.
    """
    give_up_at = time.monotonic() + SECONDS_TO_JOIN
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > give_up_at:
                raise OSError(
                    f"no process answers at {join_address(host, port)}, where the first of the "
                    f"training processes should listen ({error})"
                ) from error
        time.sleep(0.2)


def run_interruptibly(act: Callable[[], T]) -> T:
    """Call a function that blocks in C++, in a thread so that Ctrl-C works; return its result.

    If it does not return in time, the process ends: such a function can't be stopped.

    Raises:
        KeyboardInterrupt: on Ctrl-C; the function goes on until the process ends.
    """
    outcome: Future[T] = Future()

    def acting() -> None:
        try:
            outcome.set_result(act())
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=acting, daemon=True)
    thread.start()
    give_up_at = time.monotonic() + 2 * SECONDS_TO_JOIN
    while thread.is_alive() and time.monotonic() < give_up_at:
        thread.join(0.2)
    if thread.is_alive():
        end("the other processes can't be joined: not all of them have come", LOST)
    return outcome.result()


def end(sentence: str, status: int) -> NoReturn:
    """End this process at once, without waiting for its other threads."""
    Console().show_cursor()
    sys.stdout.flush()
    print(f"jax-revinc: {sentence}", file=sys.stderr, flush=True)
    os._exit(status)


def client() -> Any:
    """JAX' client for the key-value store that the processes of the job share."""
    # JAX has no public name for it. Its collectives have, but they fail for good if a process dies.
    return distributed.global_state.client
