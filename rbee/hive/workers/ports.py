"""Choose the port of a new worker: the next free one from the first, skipping those that are taken."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection
from dataclasses import dataclass

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class PortChoice:
    """A port that was free a moment ago, and those before it that other programs have."""

    port: int
    skipped: tuple[int, ...]

    @property
    def remark(self) -> str:
        """Return which ports were skipped, as a sentence; empty if none was."""
        if not self.skipped:
            return ""
        some = ", ".join(map(str, self.skipped[:8])) + (", ..." if len(self.skipped) > 8 else "")
        return f"port {some} in use by another program, took {self.port}"


def choose_port(host: str, first: int, ours: Collection[int]) -> PortChoice:
    """Find the next free port from *first*.

    Args:
        first: where to begin; 0 means any free port that the system gives.
        ours: ports that this hive has assigned already; skipped without a remark.

    Raises:
        RbeeError: WORKER_START_FAILED if there is none, or *host* is not an address of this machine.
    """
    if first == 0:
        return PortChoice(_any_port(host, ours), ())
    skipped: list[int] = []
    for port in range(first, LAST_PORT + 1):
        if port in ours:
            continue
        if _is_free(host, port):
            return PortChoice(port, tuple(skipped))
        skipped.append(port)
    raise RbeeError(
        ErrorCode.WORKER_START_FAILED,
        f"No port from {first} to {LAST_PORT} is free on {host}.",
        hint="Set first_worker_port of the hive to a range that is free.",
    )


def _any_port(host: str, ours: Collection[int]) -> int:
    while True:
        with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
        if port not in ours:
            return port


def _is_free(host: str, port: int) -> bool:
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        # The worker sets it too: without it a port whose last connections linger would look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise RbeeError(
                ErrorCode.WORKER_START_FAILED, f"Workers cannot listen on {host}: {error.strerror}."
            ) from error
    return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
