"""Format network addresses, and tell which are this machine's."""

from __future__ import annotations

import socket


def bracketed(host: str) -> str:
    """Return *host* as it stands in a URL: an IPv6 address in brackets (RFC 3986, section 3.2.2)."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def host_port(host: str, port: int) -> str:
    """Return `host:port`, an IPv6 address in brackets."""
    return f"{bracketed(host)}:{port}"


def is_this_machine(host: str) -> bool:
    """Return whether *host* is an address or a name of this machine: only those can be bound here."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(address)
                return True
    except OSError:
        pass
    return False
