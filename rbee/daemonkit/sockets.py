"""Open listening sockets, before the web server is imported."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.net import host_port


def bind(host: str, port: int) -> socket.socket:
    """Bind and listen. Raises RbeeError PORT_IN_USE, or PERMISSION_DENIED for an address that cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
    except OSError as error:
        sock.close()
        where = host_port(host, port)
        if error.errno == errno.EADDRINUSE:
            raise RbeeError(
                ErrorCode.PORT_IN_USE, f"{where} is already in use by another program.", details={"port": port}
            ) from error
        raise RbeeError(ErrorCode.PERMISSION_DENIED, f"Cannot listen on {where}: {error.strerror}.") from error
    sock.settimeout(0)
    return sock


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach *host*."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
