"""Notify systemd (sd_notify(3)), and keep the listening socket over a restart.

The service manager's file descriptor store (`FileDescriptorStoreMax=`) holds a copy of the socket while the daemon
restarts: clients that connect meanwhile wait for the next process instead of being refused. The copy is dropped when
the service stops.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from typing import Final

# sd_listen_fds(3): the first descriptor that is handed over.
_FIRST_FD: Final = 3
_NAME: Final = "listening"


def notify(state: str, fds: Sequence[int] = ()) -> bool:
    """Send *state*, such as `READY=1`, to the socket in `$NOTIFY_SOCKET`; return whether it was sent."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(address)
        socket.send_fds(sock, [state.encode()], list(fds))
        return True
    return False


def store_socket(sock: socket.socket) -> bool:
    """Store a copy of the listening *sock* in systemd for a restart; return whether it was sent."""
    return notify(f"FDSTORE=1\nFDNAME={_NAME}", [sock.fileno()])


def restored_socket(host: str, port: int) -> socket.socket | None:
    """Return the socket that the previous process stored; None without one, or if its address differs."""
    mine = os.environ.get("LISTEN_PID") == str(os.getpid())
    names = os.environ.get("LISTEN_FDNAMES", "").split(":") if mine else []
    # Children must not use them.
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(variable, None)
    found = None
    for number, name in enumerate(names, _FIRST_FD):
        if name != _NAME:
            continue
        sock = socket.socket(fileno=number)
        sock.set_inheritable(False)
        if found is None and sock.getsockname()[:2] == (host, port):
            sock.settimeout(0)
            found = sock
        else:
            sock.close()
    if found is None and _NAME in names:
        notify(f"FDSTOREREMOVE=1\nFDNAME={_NAME}")
    return found
