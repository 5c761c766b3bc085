"""Bind the lifetime of a child process to its owner, and pass messages between them.

Owner and child share one socket pair. The child writes JSON lines: first that its port is bound or why it failed to
start, later state changes that the owner has to know at once. An owner that starts a child before it knows the
child's arguments writes one line too: the orders. End-of-file means that the other side is dead.
On Linux the kernel kills the child as well (PR_SET_PDEATHSIG), which covers a child that is stuck in native code.
The signal is sent when the spawning thread ends: owners spawn from their main thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

LIFELINE_FD: Final = "RBEE_LIFELINE_FD"
ORDERED: Final = "--await-orders"
"""The only argument of a program that receives its arguments as orders."""
MAX_LINE_BYTES: Final = 1024 * 1024
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


class Lifeline:
    """The owner's end. Spawn with `env()` added and `pass_fds=(child_fd,)`, then call `spawned()`."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._buffer = b""

    @property
    def child_fd(self) -> int:
        """Return the file descriptor that the child inherits."""
        return self._theirs.fileno()

    def env(self) -> dict[str, str]:
        """Return the variables to add to the child's environment."""
        return {LIFELINE_FD: str(self.child_fd)}

    def spawned(self) -> None:
        """Close the child's end in this process, so that its death shows as end-of-file."""
        self._theirs.close()

    def give_arguments(self, argv: Sequence[str], env: Mapping[str, str], log: str) -> None:
        """Send a child that was started with `ORDERED` what it would have got at its start; its output goes to *log*.

        Secrets may be among it: nobody else can read the line. A child that is gone is noticed elsewhere.
        """
        with contextlib.suppress(OSError):
            self._ours.sendall(_line({"argv": list(argv), "env": dict(env), "log": log}))

    def read(self, timeout_s: float) -> dict[str, Any] | None:
        """Return the child's next line, None at end-of-file. Raises TimeoutError after *timeout_s* seconds."""
        self._ours.settimeout(timeout_s)
        while b"\n" not in self._buffer:
            chunk = self._ours.recv(65536)
            if not chunk:
                return None
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return _parse(line)

    async def open(self) -> LifelineReader:
        """Return the owner's end as a reader for asyncio, which takes over closing it."""
        import asyncio  # a child, which needs none of it, must not pay for the import

        reader, writer = await asyncio.open_connection(sock=self._ours, limit=MAX_LINE_BYTES)
        return LifelineReader(reader, writer)

    def close(self) -> None:
        """Close the connection; a child that is still running exits."""
        self._ours.close()
        self._theirs.close()


class LifelineReader:
    """The owner's end inside an event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> dict[str, Any] | None:
        """Return the child's next line, None at end-of-file."""
        try:
            line = await self._reader.readline()
        except (ConnectionError, ValueError):
            return None
        return _parse(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        """Close the connection; a child that is still running exits."""
        self._writer.close()


class OwnerLink:
    """The child's end; without an owner (started by hand or by systemd) every method does nothing."""

    def __init__(self, sock: socket.socket | None) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._orders: dict[str, Any] = {}
        self._ordered = threading.Event()
        self._listener: threading.Thread | None = None

    def listen(self) -> None:
        """Notice the owner's end from now on, in a thread."""
        if self._sock is not None and self._listener is None:
            self._listener = threading.Thread(target=self._listen, args=(self._sock,), name="lifeline", daemon=True)
            self._listener.start()

    @property
    def owned(self) -> bool:
        """Return whether there is an owner."""
        return self._sock is not None

    def tell(self, message: dict[str, Any]) -> None:
        """Send one line to the owner; a dead owner is not an error here."""
        if self._sock is None:
            return
        with self._lock, contextlib.suppress(OSError):
            self._sock.sendall(_line(message))

    def take_arguments(self) -> list[str]:
        """Wait for orders `{"argv", "env", "log"}`; write to that log, take over the environment, return the arguments.

        Exits where there is no owner who could give any.
        """
        if self._listener is not None:
            self._ordered.wait()
        elif self._sock is not None:
            self._receive_orders(self._sock)
        orders = self._orders
        if not orders:
            sys.exit(f"{ORDERED} is for a program that starts this one as its child; see --help")
        os.environ.update(orders["env"])
        log = os.open(orders["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log, stream.fileno())
        os.close(log)
        return list(orders["argv"])

    def _listen(self, sock: socket.socket) -> None:
        """Receive the orders, if none came yet, then nothing until the owner's end closes; then exit."""
        if not self._ordered.is_set():
            self._receive_orders(sock)
        with contextlib.suppress(OSError):
            while sock.recv(65536):
                pass
        os._exit(1)

    def _receive_orders(self, sock: socket.socket) -> None:
        """Wait for the one line that an owner may send; exit where it closes its end instead."""
        buffer = b""
        with contextlib.suppress(OSError):
            while data := sock.recv(65536):
                buffer += data
                if buffer.endswith(b"\n"):
                    self._orders = _parse(buffer) or {}
                    self._ordered.set()
                    return
        os._exit(1)


def attach(*, listen: bool = True) -> OwnerLink:
    """Bind the lifetime of this process to its owner's, if the environment names a lifeline.

    Without *listen* no thread is started on Linux, where the kernel ends the process with its owner: for a process that
    restricts itself first, which has to be done before there are threads. Then call `listen`.

    Call it first in `main`, before anything slow. When the owner dies, this process exits at once, without clean-up.
    The variable is removed from the environment, so that children do not use it.
    """
    text = os.environ.pop(LIFELINE_FD, None)
    if text is None:
        return OwnerLink(None)
    fd = int(text)
    fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    die_with_parent()
    link = OwnerLink(socket.socket(fileno=fd))
    if listen or sys.platform != "linux":
        link.listen()
    return link


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that spawned it ends; nothing where it is not Linux."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
