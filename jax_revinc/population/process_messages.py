"""Signed messages by which the first training process tells the others that it is ready or failed.

They go through JAX's key-value store, to which anybody who reaches the port can write. So every
announcement is signed with the job's key, a file in the population's folder.
"""

from __future__ import annotations

import hmac
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jax

from jax_revinc.population.prepare_folder import check_store
from jax_revinc.population.processes import SECONDS_TO_LEAVE, client
from jax_revinc.population.store import KEY
from revinc import UserError
from revinc.atomic_files import write_bytes

ANNOUNCED = "jax-revinc/announced"
"""The entry of JAX's key-value store that holds the announcement."""

MILLISECONDS_BETWEEN_LOOKS = 500

KEY_BYTES = 32

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def job_key(folder: Path) -> Iterator[None]:
    """A context in which the population's folder holds a key to sign messages between processes."""
    file = folder / KEY
    file.unlink(missing_ok=True)  # left by a job that was killed
    if jax.process_count() > 1:
        write_bytes(file, secrets.token_hex(KEY_BYTES).encode(), mode=0o600)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


@contextmanager
def announce_end(folder: Path) -> Iterator[None]:
    """A context at whose end the first process tells the others whether it succeeded or failed."""
    try:
        yield
    except (UserError, OSError) as error:
        if _announce(folder, str(error)):
            time.sleep(SECONDS_TO_LEAVE)  # the key is deleted when this process ends
        raise
    _announce(folder, "")


def wait_for_first(folder: Path) -> None:
    """Wait for the first process' signed message that the population's folder is prepared.

    Raises:
        UserError: if the first process failed, with its message.
    """
    while (problem := _announcement(folder)) is None:
        # If the first process refuses the folder, it writes no key and so announces nothing.
        check_store(folder)
    if problem:
        raise UserError(f"the first training process failed: {problem}")


def sign(key: bytes, message: str) -> str:
    """Return a text that holds a message and its signature, an HMAC made with `key`."""
    return f"{hmac.digest(key, message.encode(), 'sha256').hex()} {message}"


def verify(key: bytes, text: str) -> str | None:
    """Return the message in a text that `sign` made, or None if `key` did not sign the message."""
    _, _, message = text.partition(" ")
    is_ours = hmac.compare_digest(sign(key, message).encode(), text.encode())
    return message if is_ours else None


def read_key(folder: Path) -> bytes | None:
    """Read the key to sign messages from the population's folder; return None if there is none."""
    try:
        with os.fdopen(os.open(folder / KEY, os.O_RDONLY | NO_FOLLOW), "rb") as opened:
            key = opened.read(2 * KEY_BYTES)
    except OSError:
        return None
    return key if len(key) == 2 * KEY_BYTES else None


def _announce(folder: Path, message: str) -> bool:
    """Send a message to the other processes, if there are any; return whether it was sent."""
    key = read_key(folder) if jax.process_count() > 1 else None
    if key:
        client().key_value_set(ANNOUNCED, sign(key, message), allow_overwrite=True)
    return key is not None


def _announcement(folder: Path) -> str | None:
    """The first process' message: empty if it succeeded, else its error; None if none came yet."""
    with suppress(jax.errors.JaxRuntimeError):  # a timeout, after which Ctrl-C is heard
        text = client().blocking_key_value_get(ANNOUNCED, MILLISECONDS_BETWEEN_LOOKS)
        key = read_key(folder)
        if key and (message := verify(key, text)) is not None:
            return message
        time.sleep(MILLISECONDS_BETWEEN_LOOKS / 1000)
    return None
