"""A relay for a process' connection to its job's first process; it notices when that one has ended.

JAX' own client would end the process from C++, with a stack trace, when its connection breaks. So
it connects to a socket of this process, a `Relay`, which forwards everything.
"""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SECONDS_TO_CONNECT = 30.0

KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
"""A machine that falls silent is noticed within 50 s; JAX' client would notice it after 100 s."""


class Relay:
    """A local socket that forwards data to and from a remote one, and notices when that one closes.

    Args:
        host: the host of the other socket.
        port: its port.
        lost: called, in a thread, if the other side ends a connection or can't be reached.
    """

    def __init__(self, host: str, port: int, lost: Callable[[], object]) -> None:
        self._other, self._lost = (host, port), lost
        self._is_needed = True
        # Only this user may enter the folder, so nobody else connects here.
        self._folder = tempfile.TemporaryDirectory(prefix="jax-revinc-")
        path = Path(self._folder.name) / "socket"
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(path))
        self._door.listen()
        self.address = f"unix:{path}"
        threading.Thread(target=self._serve, daemon=True).start()

    def let_go(self) -> None:
        """From now on, do not call `lost` when the other side ends a connection."""
        self._is_needed = False

    def close(self) -> None:
        """Close the local socket, so that it accepts no more connections."""
        self._door.close()
        self._folder.cleanup()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._door.accept()
                self._connect(near)

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._other, timeout=SECONDS_TO_CONNECT)
        except OSError:
            self._ended()
            return
        far.settimeout(None)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            if hasattr(socket, option):
                far.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        near_ended = threading.Event()

        def there() -> None:
            forward(near, far)
            near_ended.set()
            with suppress(OSError):
                far.shutdown(socket.SHUT_RDWR)

        def back() -> None:
            forward(far, near)
            if not near_ended.is_set():
                self._ended()

        for direction in (there, back):
            threading.Thread(target=direction, daemon=True).start()

    def _ended(self) -> None:
        if self._is_needed:
            self._lost()


def forward(source: socket.socket, sink: socket.socket) -> None:
    """Forward data from one socket to another until the source ends or the sink is gone."""
    with suppress(OSError):
        while data := source.recv(2**16):
            sink.sendall(data)
